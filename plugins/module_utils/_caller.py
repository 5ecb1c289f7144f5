# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether somebody still waits for the result of this module.

A play that was killed leaves its modules running on the hosts: with pipelining they have no terminal that could hang
up. One that waits for a dead server must not wake up minutes later and change what nobody expects any more.

The ssh client outlives a killed play, since ansible-core starts it in a session of its own, and notices only when it
hands on some output that nobody reads its own any more. So whoever waits sends an empty line from time to time:
ansible-core ignores what stands before the result.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from types import FrameType

# Seconds between two empty lines.
_PAUSE = 2.0


class CallerGoneError(Exception):
    """Nobody waits any more: the module must end without doing anything further."""


class Caller:
    """Whoever reads this module's output."""

    def __init__(self, output: int = 1) -> None:
        self._output = output
        self._told_to_end = False
        kind = os.fstat(output).st_mode
        self._next_sign = time.monotonic() + _PAUSE if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else float("inf")

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
        if any(event & (select.POLLERR | select.POLLHUP) for _output, event in poll.poll(0)):
            return True
        if time.monotonic() < self._next_sign:
            return False
        self._next_sign = time.monotonic() + _PAUSE
        try:
            os.write(self._output, b"\n")
        except BrokenPipeError:
            return True
        return False
