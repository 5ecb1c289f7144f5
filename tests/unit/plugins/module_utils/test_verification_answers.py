# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit, a mapping of users or a protection is claimed only where the pods have met it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _verification_answers as answers

FULL = "refused: dd: error writing '/mnt/SUCCESS-8Mi': No space left on device"


@pytest.mark.parametrize(
    ("said", "on_server", "kind", "words"),
    [
        (
            {"size": "written"},
            answers.WRITTEN + 17,
            "note",
            "size not enforced: 8 MiB were written into a claim of 2Mi",
        ),
        ({"size": "written"}, None, "note", "size not enforced: 8 MiB were written into a claim of 2Mi"),
        ({"size": "written"}, 4096, "wrong", "the pod wrote 8 MiB, but the server has 4096 bytes of them"),
        (
            {"size": FULL, "total": "2048"},
            2000000,
            "right",
            "size enforced: 8 MiB do not go into a claim of 2Mi (No space left on device)",
        ),
        # A disk that is full is a fault, and no limit of this claim.
        ({"size": FULL, "total": "1000000"}, 0, "wrong", "8 MiB could not be written: No space left on device"),
        ({"size": FULL, "total": ""}, 0, "wrong", "8 MiB could not be written: No space left on device"),
        ({}, None, "unseen", "size, since the pod did not say what became of 8 MiB in a claim of 2Mi"),
    ],
)
def test_size(said: dict[str, str], on_server: int | None, kind: str, words: str) -> None:
    assert answers.size(said, on_server) == (kind, words)


@pytest.mark.parametrize(
    ("root", "user", "squash"),
    [
        (0, 1000, "no_root_squash"),
        (65534, 1000, "root_squash"),
        (65534, 65534, "all_squash"),
        (0, 0, "all_squash"),
        (2000, 3000, "all_squash"),
        (1000, 1000, "root_squash or all_squash"),
        (65534, None, "root_squash or all_squash"),
        (0, None, "no_root_squash"),
    ],
)
def test_owners(root: int, user: int | None, squash: str) -> None:
    said = "written" if user is not None else "refused: sh: can't create /mnt/SUCCESS-1000: Permission denied"
    found = answers.owners((root, root), None if user is None else (user, user), said, "server1")
    wrote = "cannot write (Permission denied)" if user is None else f"as {user}:{user}"
    mapping = f"0:0 writes as {root}:{root} on server1, 1000:1000 {wrote}"
    assert found == ("note", f"uid mapping ({squash}): {mapping}")


def test_a_file_that_was_written_and_is_not_there_is_wrong() -> None:
    found = answers.owners((0, 0), None, "written", "server1")
    assert found == ("wrong", "uid 1000 wrote a file, but it is not there on server1")


@pytest.mark.parametrize(
    ("does", "said", "kind", "words"),
    [
        ("access-mode", "written", "note", "ReadOnlyMany is not enforced by the access mode: node1 could write"),
        (
            "access-mode",
            "refused: sh: can't create /mnt/x: Read-only file system",
            "right",
            "ReadOnlyMany is enforced by the access mode",
        ),
        (
            "read-only",
            "written",
            "wrong",
            "ReadOnlyMany is not enforced by readOnly: true of the pod's volume: node1 could write",
        ),
        (
            "mount-option",
            "refused: sh: can't create /mnt/x: Permission denied",
            "unseen",
            "whether ReadOnlyMany is enforced by the mount option ro, since writing fails anyway: Permission denied",
        ),
        (
            "read-only",
            "",
            "unseen",
            "whether ReadOnlyMany is enforced by readOnly: true of the pod's volume, since the pod did not say",
        ),
    ],
)
def test_read_only(does: str, said: str, kind: str, words: str) -> None:
    assert answers.read_only(does, {"write": said} if said else {}, "node1") == (kind, words)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ({}, {}),
        ({"containerStatuses": [{"name": "test", "state": {"running": {}}}]}, {}),
        ({"containerStatuses": [{"name": "user", "state": {"terminated": {"message": "write: written"}}}]}, {}),
        ({"containerStatuses": [{"name": "test", "state": {"terminated": {"exitCode": 0}}}]}, {}),
        (
            {"containerStatuses": [{"name": "test", "state": {"terminated": {"message": "a: b: c\ntotal: \n"}}}]},
            {"a": "b: c", "total": ""},
        ),
    ],
)
def test_said(status: dict[str, Any], found: dict[str, str]) -> None:
    assert answers.said({"status": status}, "test") == found
