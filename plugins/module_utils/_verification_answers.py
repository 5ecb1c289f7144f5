# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from what test pods could do: is a size a limit, who is who on the server, what keeps from writing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# An ordinary user, beside root.
UID = 1000
WRITTEN = 8 * 1024 * 1024
# What could keep a pod from writing to a ReadOnlyMany claim, by what a pod tries.
READ_ONLY = {
    "access-mode": "the access mode",
    "read-only": "readOnly: true of the pod's volume",
    "mount-option": "the mount option ro",
}
Owner = tuple[int, int]


class Finding(NamedTuple):
    kind: str  # right, note, wrong or unseen
    words: str


def said(pod: Mapping[str, Any], container: str) -> dict[str, str]:
    """The lines C(key: words) that a container left as its termination message."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("name") == container:
            ended = (status.get("state") or {}).get("terminated") or {}
            lines = (line.partition(": ") for line in (ended.get("message") or "").splitlines())
            return {key: words.strip() for key, _separator, words in lines}
    return {}


def size(pod: Mapping[str, str], on_server: int | None) -> Finding:
    """Whether 2Mi are a limit. C(on_server) is how much the server has of what was written, None if nobody looked."""
    total = pod.get("total", "")
    if pod.get("size") == "written":
        if on_server is not None and on_server < WRITTEN:
            return Finding("wrong", f"the pod wrote 8 MiB, but the server has {on_server} bytes of them")
        return Finding("note", "size not enforced: 8 MiB were written into a claim of 2Mi")
    if "size" not in pod:
        return Finding("unseen", "size, since the pod did not say what became of 8 MiB in a claim of 2Mi")
    # A limit shows as the size of the file system. A larger one has no room for other reasons.
    if total.isdigit() and int(total) * 1024 <= WRITTEN:
        return Finding("right", f"size enforced: 8 MiB do not go into a claim of 2Mi ({_reason(pod['size'])})")
    return Finding("wrong", f"8 MiB could not be written: {_reason(pod['size'])}")


def owners(root: Owner, user: Owner | None, user_said: str, host: str) -> Finding:
    """Whom the server takes root and an ordinary user for; C(user) is None if it could not write."""
    if user:
        ordinary = f"{UID}:{UID} as {user[0]}:{user[1]}"
    elif user_said.startswith("refused"):
        ordinary = f"{UID}:{UID} cannot write ({_reason(user_said)})"
    else:
        return Finding("wrong", f"uid {UID} wrote a file, but it is not there on {host}")
    mapping = f"0:0 writes as {root[0]}:{root[1]} on {host}, {ordinary}"
    return Finding("note", f"uid mapping ({_squash(root[0], user[0] if user else None)}): {mapping}")


def _squash(root: int, user: int | None) -> str:
    """What the export does with users, as far as it follows from two of them."""
    if user not in (None, UID):
        return "all_squash"
    if root == 0:
        return "no_root_squash"
    # With anonuid=1000 everybody is the ordinary user.
    return "root_squash" if user == UID != root else "root_squash or all_squash"


def read_only(does: str, pod: Mapping[str, str], node: str) -> Finding:
    """Whether something kept the pod C(does) from writing to a ReadOnlyMany claim."""
    what, outcome = READ_ONLY[does], pod.get("write", "")
    if outcome == "written" and does == "access-mode":
        return Finding("note", f"ReadOnlyMany is not enforced by the access mode: {node} could write")
    if outcome == "written":
        return Finding("wrong", f"ReadOnlyMany is not enforced by {what}: {node} could write")
    if "read-only file system" in outcome.lower():
        return Finding("right", f"ReadOnlyMany is enforced by {what}")
    why = f"writing fails anyway: {_reason(outcome)}" if outcome else "the pod did not say"
    return Finding("unseen", f"whether ReadOnlyMany is enforced by {what}, since {why}")


def _reason(outcome: str) -> str:
    """The operating system's words, without the program and the file."""
    return outcome.rpartition(": ")[2]
