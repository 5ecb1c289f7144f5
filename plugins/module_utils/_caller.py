# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether somebody still waits for the result of this module.

A play that was killed leaves its modules running on the hosts: with pipelining they have no terminal that could hang
up. One that waits for a dead server must not wake up minutes later and change what nobody expects any more.
"""

from __future__ import annotations

import select
import signal
from types import FrameType


class CallerGoneError(Exception):
    """Nobody waits any more: the module must end without doing anything further."""


class Caller:
    """Whoever reads this module's output."""

    def __init__(self, output: int = 1) -> None:
        self._output = output
        self._told_to_end = False

    def heed_signals(self) -> None:
        """From now on a signal that asks for the end counts as a caller who is gone."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_end = True

    @property
    def is_gone(self) -> bool:
        if self._told_to_end:
            return True
        # A new one each time: several threads ask. Errors and hang-ups are always reported: the other end of the pipe
        # or socket was closed.
        poll = select.poll()
        poll.register(self._output, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _output, event in poll.poll(0))
