# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check found: problems, which stop a run, and notes, which a person should know."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    host: str
    variable: str
    message: str

    def __str__(self) -> str:
        return f"{self.host}: {self.variable}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        return {"host": self.host, "variable": self.variable, "message": self.message}


@dataclass
class Report:
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    _numbers: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def problem(self, host: str, variable: str, message: str) -> None:
        self._add(self.problems, host, variable, message)

    def note(self, host: str, variable: str, message: str) -> None:
        self._add(self.notes, host, variable, message)

    def number(self, host: str, variable: str, original: list[int]) -> None:
        """From now on entries of this list are called by the numbers that they had before some were left out."""
        self._numbers[host, variable] = original

    def _add(self, findings: list[Finding], host: str, variable: str, message: str) -> None:
        for (of_host, name), original in self._numbers.items():
            if of_host == host:
                entry = re.compile(rf"\b{name}\[(\d+)\]")
                variable, message = (
                    entry.sub(lambda found, n=name, o=original: f"{n}[{o[int(found[1])]}]", text)  # type: ignore[misc]  # mypy does not infer n, o
                    for text in (variable, message)
                )
        finding = Finding(host, variable, message)
        if finding not in findings:
            findings.append(finding)
