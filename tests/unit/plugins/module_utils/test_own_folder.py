# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder `.clusterkit`: its files, and who may work in it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _own_folder
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import entry_key, entry_name
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import (
    FolderError,
    read_json,
    slug,
    write_json,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    Folder,
    Owner,
    Places,
    intent_name,
    timestamp,
    uid_problem,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._share_base import Share, exported_paths, find_share
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_of
from hypothesis import given
from hypothesis import strategies as st

ALICE = Owner("alice", "boot", 1)
BOB = Owner("bob", "boot", 2)
MOUNTS = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 8:16 / /srv rw - xfs /dev/sdb rw
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder(str(tmp_path), Places()) as made:
        made.open(create=True)
        yield made


@given(st.integers(0, 2**32))
def test_times_come_back(seconds: int) -> None:
    assert seconds_of(timestamp(seconds)) == seconds


@given(st.text(max_size=300))
def test_a_slug_is_a_safe_name(text: str) -> None:
    name = slug(text)
    assert 0 < len(name) <= 120 and name == name.encode("ascii").decode()
    assert "/" not in name and not name.startswith(".") and "\0" not in name and "\n" not in name


@given(
    st.integers(0, 2**32),
    st.integers(0, 2**32),
    st.text(min_size=1, max_size=300),
    st.integers(1, 2**63),
    st.booleans(),
)
def test_entries_of_the_same_volume_have_the_same_key(now: int, later: int, name: str, inode: int, known: bool) -> None:
    volume = {"name": name, "uid": "6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"} if known else None
    first, second = (entry_name(when, volume, f"/srv/{name}", inode) for when in (now, later))
    assert entry_key(first) == entry_key(second) == entry_key(f"{second}.12")
    assert len(first) < 200 and "/" not in first
    assert volume is None or len(intent_name(volume)) < 200


@pytest.mark.parametrize("uid", ["", "a/b", "..", "-x", "a b", "x" * 65, None, 5, "a\n"])
def test_what_is_no_uid(uid: Any) -> None:
    assert "is no uid" in str(uid_problem(uid))
    assert uid_problem("0e2c-4711") is None


def test_where_the_folder_is(tmp_path: Path) -> None:
    table = _mounts.MountTable(_mounts.parse(MOUNTS.replace("/srv", str(tmp_path))))
    share = tmp_path / "k8s"
    share.mkdir()
    for exported, base in (
        ([str(share)], tmp_path),
        ([str(tmp_path)], share),
        (["/"], share),
        (None, share),
        ([], tmp_path),
    ):
        assert find_share(str(share), table, exported) == Share(str(share), str(base))
    (share / ".clusterkit").mkdir(0o755)
    assert find_share(str(share), table, []).base == str(tmp_path), "a client may have made it"
    (share / ".clusterkit").chmod(0o700)
    assert find_share(str(share), table, []).base == str(share)
    (tmp_path / ".clusterkit").symlink_to("nowhere")
    assert find_share(str(share), table, []).base == str(share)
    (share / ".clusterkit").rmdir()
    found = find_share(str(share), table, None)
    assert found.base == str(tmp_path), "a link there is looked at, not passed over"
    assert (found.key, Share("/a", "/a").key) == ("k8s", ".")
    assert exported_paths(str(tmp_path / "missing")) is None
    (tmp_path / "etab").write_text("/srv/a\t10.0.0.0/8(rw)\n/srv/b\\040c\t*(ro)\n")
    assert exported_paths(str(tmp_path / "etab")) == ["/srv/a", "/srv/b c"]


def test_device_of_a_file_system(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(folder.base).st_dev
    monkeypatch.setattr(_mounts, "read", lambda: _mounts.MountTable([]))
    assert folder.device == f"{os.major(found)}:{os.minor(found)}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is damaged"),
        ("[]", "is no Lease"),
        ('{"kind": "Share", "schema": 1}', "is no Lease"),
        ('{"kind": "Lease", "schema": 2}', "has schema 2; expected 1"),
        ('{"kind": "Lease", "schema": 1}', "expires_at is missing"),
        ("\xff", "is damaged"),
    ],
)
def test_files_that_are_not_ours(folder: Folder, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / ".clusterkit/lease.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(FolderError, match=words):
        folder.lease()
    problem = folder.lease_problem(ALICE, [], allow_break=False)
    assert problem and words in problem and "allow_break_lease" in problem
    assert folder.lease_problem(ALICE, [], allow_break=True) is None


def test_a_pipe_is_no_file(folder: Folder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".clusterkit/share.json")
    with pytest.raises(FolderError, match="is no file"):
        folder.clusters()


def test_a_file_is_replaced_whole_or_not_at_all(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = {"schema": 1, "kind": "Lease", "owner": ALICE.data(), "expires_at": "x"}
    (tmp_path / ".clusterkit/.lease.json.clusterkit-new").write_text("of a run that was killed")
    write_json(folder.own, "lease.json", lease)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_json(folder.own, "lease.json", {**lease, "expires_at": "y"})
    assert read_json(folder.own, "lease.json", "Lease") == lease
    names = {path.name for path in (tmp_path / ".clusterkit").iterdir()}
    assert names == {"lease.json", "intents", "trash"}


def test_lease_without_space(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_own_folder, "write_json", full)
    with pytest.raises(OSError):
        folder.take_lease(ALICE, needs_space=True)
    folder.take_lease(ALICE, needs_space=False)
    assert "could not be renewed: No space left" in folder.warnings[0]
    folder.drop_lease()
    folder.drop_lease()


def test_lease_is_renewed_and_dropped(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.take_lease(ALICE, needs_space=True)
    inode = (tmp_path / ".clusterkit/lease.json").stat().st_ino
    folder.renew_lease()
    assert (tmp_path / ".clusterkit/lease.json").stat().st_ino == inode, "not yet"
    monkeypatch.setattr(_own_folder, "_RENEW_SECONDS", -1)
    folder.renew_lease()
    assert (tmp_path / ".clusterkit/lease.json").stat().st_ino != inode
    (tmp_path / ".clusterkit/lease.json").unlink()
    folder.renew_lease()
    assert folder.lease_problem(ALICE, [], allow_break=False) is None
    assert "process 1 of alice holds the lease" in str(folder.lease_problem(BOB, [1], allow_break=False))
    lease = json.loads((tmp_path / ".clusterkit/lease.json").read_text())
    (tmp_path / ".clusterkit/lease.json").write_text(json.dumps({**lease, "owner": BOB.data()}))
    with pytest.raises(FolderError, match="process 2 of bob has taken the lease"):
        folder.renew_lease()
    folder.drop_lease()
    assert folder.lease() is not None, "it is theirs"


def test_journal(folder: Folder, tmp_path: Path) -> None:
    journal = tmp_path / ".clusterkit/journal.jsonl"
    folder.write_journal([{"a": 1}, {"a": 2}])
    journal.write_text(journal.read_text() + '{"to')
    folder.write_journal([{"a": "\udcff"}])
    lines = journal.read_text().splitlines()
    assert len(lines) == 4 and lines[2] == '{"to' and json.loads(lines[3])["a"] == "\udcff"
    journal.unlink()
    journal.symlink_to(tmp_path / "elsewhere")
    folder.write_journal([{"a": 1}])
    assert "journal.jsonl could not be written" in folder.warnings[0] and not (tmp_path / "elsewhere").exists()


def test_entries(folder: Folder, tmp_path: Path) -> None:
    names = []
    for _number in range(3):
        with folder.make_entry("x") as entry:
            names.append(entry.name)
            assert entry.read() is None and entry.data() is None
            (tmp_path / ".clusterkit/trash" / entry.name / ".manifest.json.clusterkit-new").write_text("")
            (tmp_path / ".clusterkit/trash" / entry.name / "manifest.json").write_text("")
    assert names == ["x", "x.1", "x.2"]
    for name in names:
        found = folder.open_entry(name)
        assert found is not None
        with found:
            folder.remove_entry(found)
    assert folder.open_entry("x") is None
    for name in ("", ".", "..", "a/b", "a\0b"):
        with pytest.raises(FolderError, match="is not the name"):
            folder.open_entry(name)


def test_too_many_entries_of_one_name(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_arguments: Any, **_more: Any) -> None:
        raise FileExistsError

    monkeypatch.setattr(os, "mkdir", taken)
    with pytest.raises(FolderError, match="99 more of that name"):
        folder.make_entry("x")


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with Folder(str(tmp_path), Places()) as folder:
        assert folder.open(create=False) is False
        assert not folder.exists and folder.clusters() == {} and folder.lease() is None
        assert folder.open_entry("x") is None
    assert list(tmp_path.iterdir()) == []
