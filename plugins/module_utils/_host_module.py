# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module that brings a host to what is wanted tells what it did, or why it did not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _files

_ITEM = re.compile(r"\w+\[(\d+)\]")


class HostError(Exception):
    """What the user has to know when the host is not as wanted."""

    def __init__(
        self, message: str, problems: Sequence[str], *, changed: bool = False, warnings: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = list(problems)
        self.changed = changed
        self.warnings = list(warnings)


def refused(problems: Sequence[str], warnings: Sequence[str] = ()) -> HostError:
    """The error for what was found wrong before anything was changed, by item, not by the check that found it."""
    problems = sorted(problems, key=lambda text: int((_ITEM.match(text) or [0, -1])[1]))
    count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
    return HostError(f"{count}, nothing was changed: " + "; ".join(problems), problems, warnings=warnings)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Before anything is changed: a file that cannot be read is a refusal."""
    try:
        yield
    except OSError as error:
        raise refused([_files.complaint(error)]) from error


def run(module: AnsibleModule, do: Callable[[], Any]) -> None:
    """End the module with the attributes of what C(do) returns, or with its error."""
    try:
        result = dict(vars(do()))
    except HostError as failure:
        for warning in failure.warnings:
            module.warn(warning)
        module.fail_json(msg=failure.message, problems=failure.problems, changed=failure.changed)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)
