# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the inputs of the cluster have in common, and the words for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options, _quantity

Tell = Callable[[str, str], None]  # takes the place and the message

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_LAST_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)


def unique(variable: str, key: str, items: Iterable[tuple[int, Mapping[str, Any]]], problem: Tell) -> None:
    first: dict[str, int] = {}
    for index, one in items:
        before = first.setdefault(one[key], index)
        if before != index:
            problem(f"{variable}[{index}].{key}", f'"{one[key]}" is already taken by {variable}[{before}]')


def check_name(name: str, form: re.Pattern[str], length: int, tell: Callable[[str], None]) -> None:
    if not form.fullmatch(name) or len(name) > length:
        tell(f'"{name}" is not a name that Kubernetes takes: small letters, digits and "-", at most {length}')


def check_provisioner_name(name: str, tell: Callable[[str], None]) -> None:
    prefix, slash, last = name.rpartition("/")
    if (slash and not SUBDOMAIN.fullmatch(prefix)) or not _LAST_PART.fullmatch(last) or len(last) > 63:
        tell(f'"{name}" is not a provisioner name; write for example example.org/nfs')


def check_strings(values: Mapping[str, Any], place: str, problem: Tell) -> None:
    for key, value in values.items():
        if not isinstance(value, str):
            problem(f"{place}.{key}", f"{value!r} is not a string; Kubernetes takes only strings here: use quotes")


def check_size(text: str, tell: Callable[[str], None]) -> bool:
    try:
        size = _quantity.parse(text)
    except ValueError as wrong:
        tell(str(wrong))
        return False
    if size <= 0:
        tell(f'"{text}" must be more than nothing')
    return size > 0


def is_size(text: str) -> bool:
    try:
        return _quantity.parse(text) > 0
    except ValueError:
        return False


def in_words(value: Fraction) -> str:
    # Read back in Gi or the like where that is exact, else in bytes.
    for power, suffix in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if (value / 2**power).denominator in (1, 2, 5, 10) and value >= 2**power:
            return f"{float(value / 2**power):g}{suffix}"
    return f"{float(value):.0f} bytes"


def check_directory(path: str, tell: Callable[[str], None]) -> None:
    if not path.startswith("/"):
        tell(f'"{path}" is not absolute; it must start with "/"')
    elif any(part in ("", ".", "..") for part in path[1:].split("/")) and path != "/":
        tell(f'"{path}" must not end in "/" or contain "//", "." or ".."')
    elif any(ord(character) < 32 for character in path):
        tell(f"{path!r} contains a control character")


def check_server(server: str, tell: Callable[[str], None]) -> None:
    if not server or any(character.isspace() or character == "/" for character in server):
        tell(f'"{server}" is not the name or address of a server')


def check_mount_options(options: Sequence[str], place: str, problem: Tell, note: Tell) -> None:
    for sentence in _mount_options.problems(_mount_options.parse(options)):
        problem(place, sentence)
    for sentence in _mount_options.notes(_mount_options.parse(options)):
        note(place, sentence)
