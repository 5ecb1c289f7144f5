# SPDX-License-Identifier: GPL-3.0-or-later
"""What engines say of files, and trees compared with what was recorded."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import Progress
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import Entry, KnownDigests
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_rsync_record import (
    AttributesFoundError,
    Record,
    has_attributes,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result
from hypothesis import given
from hypothesis import strategies as st

# As rsync 3.5.0 printed it; the trailing slash of a directory is rsync's.
COPIED = rb">f+++++++++|764efa883dda1e11db47671c4a3bbd9e|3|2026/11/25-17:43:34|rw-r--r--|0|0|h"
LINKED = rb"hf         |                                |3|2026/11/25-17:43:34|rw-r--r--|0|0|h"
FOLDER = rb"cd         |                                |4096|2026/11/25-17:43:34|rwxrws--T|99|98|d/"
ODD = rb">f+++++++++|fbade9e36a3f36d3d676c1b808451dd7|1|2026/11/25-17:43:34|rwsr-xr-x|0|0|\#377\#134#123|x -> y"


def test_lines_of_rsync() -> None:
    copied, linked, folder, odd = _backup_files.told(b"\n".join((COPIED, LINKED, FOLDER, ODD)) + b"\n")
    assert copied[:4] == (b">", b"f", b"+++++++++", b"764efa883dda1e11db47671c4a3bbd9e")
    assert linked[:4] == (b"h", b"f", b"         ", b"")
    assert folder[:4] == (b"c", b"d", b"         ", b"")
    assert odd[4] == rb"1|2026/11/25-17:43:34|rwsr-xr-x|0|0|\#377\#134#123|x -> y"
    changed = rb"cf...p.....|                                |3|2026/11/25-17:43:34|rw-------|0|0|a"
    assert [one[:4] for one in _backup_files.told(changed)] == [(b"c", b"f", b"...p.....", b"")]
    others = [b"", b"created directory ../g1", b"*deleting   a|b|3|c", b"Number of files: 9", b"sent 300 bytes | a | b"]
    assert _backup_files.told(b"\n".join([*others, COPIED, *others])) == [copied]


def test_lines_of_the_list() -> None:
    root = FOLDER[:-2] + b"./"
    lines = {
        _backup_files.read_line(_backup_files.list_line(kind, digest, rest))
        for _how, kind, _flags, digest, rest in _backup_files.told(b"\n".join((FOLDER, root, ODD)))
    }
    assert lines == {
        Entry("d", b"d", 4096, 1795628614, 0o3770, 99, 98, ""),
        Entry("d", b".", 4096, 1795628614, 0o3770, 99, 98, ""),
        Entry("f", b"\xff\\#123|x -> y", 1, 1795628614, 0o4755, 0, 0, "fbade9e36a3f36d3d676c1b808451dd7"),
    }
    with pytest.raises(ValueError, match="unpack"):
        _backup_files.read_line(b"f|x\n")


def test_what_could_not_be_read_is_neither_listed_nor_left(tmp_path: Path) -> None:
    for name in ("read-later", "bad"):
        (tmp_path / name).write_text("half")
    os.utime(tmp_path, (1, 1))
    sink, result = io.BytesIO(), Result()
    record = Record(tmp_path, [], sink, result, Progress(0), careful=True)
    unread = b">f+++++++++|" + _backup_files.NOT_READ + b"|3|2026/11/25-17:43:34|rw-r--r--|0|0|%b\n"
    record.text(unread % b"read-later" + unread % b"bad" + unread % b"away")
    (tmp_path / "read-later").write_text("all")
    record.text(COPIED[:-1] + b"read-later\n" + unread % b"bad")
    record.end()
    assert [path.name for path in tmp_path.iterdir()] == ["read-later"]
    assert tmp_path.stat().st_mtime == 1
    assert (result.counts["files"], result.copied_bytes) == (1, 3)
    assert [_backup_files.read_line(line).path for line in sink.getvalue().splitlines()] == [b"read-later"]


def test_sizes_are_those_of_the_copies(tmp_path: Path) -> None:
    """rsync prints what it knew before it opened a file, and has named a file before its copy is there."""
    sink, result = io.BytesIO(), Result()
    record = Record(tmp_path, [], sink, result, Progress(0), careful=False)
    record.text(b"".join(COPIED[:-1] + name + b"\n" for name in (b"late", b"never", b"grown")))
    assert sink.getvalue() == b""
    (tmp_path / "late").write_text("abc")
    record.text(FOLDER + b"\n")
    (tmp_path / "grown").write_text("abcdef")
    (tmp_path / "h").hardlink_to(tmp_path / "grown")
    record.text(LINKED + b"\n")
    record.end()
    entries = [_backup_files.read_line(line) for line in sink.getvalue().splitlines()]
    assert [(one.path, one.size) for one in entries if one.type == "f"] == [(b"late", 3), (b"h", 6), (b"grown", 6)]
    assert (result.counts["files"], result.bytes, result.changed, result.copied_bytes) == (3, 15, 2, 9)
    assert not result.complete
    assert result.problems == ["1 files were read and are not in the copy, never among them"]


@pytest.mark.parametrize("flags", [b"         ", b"+++++++++"])
def test_other_names_have_the_content_of_their_file(tmp_path: Path, flags: bytes) -> None:
    """Size and second are those of the older generation; what rsync calls new is not from there."""
    (tmp_path / "h").write_text("abc")
    sink = io.BytesIO()
    older = b"0" * 31 + b"1"
    known = KnownDigests([LINKED.replace(b"hf         |", b"f|").replace(b" " * 32, older) + b"\n"])
    record = Record(tmp_path, [known], sink, Result(), Progress(0), careful=False)
    record.text(LINKED.replace(b" " * 9, flags, 1) + b"\n")
    record.end()
    (entry,) = map(_backup_files.read_line, sink.getvalue().splitlines())
    copied = hashlib.md5(b"abc", usedforsecurity=False).hexdigest()
    assert entry.digest == (older.decode() if flags.isspace() else copied)


PLAIN = (
    b"cd+++++++++||4096|2026/11/25-17:43:34|rwxr-xr-x|0|0|./",
    b"cd+++++++++||4096|2026/11/25-17:43:34|rwxr-xr-x|0|0|folder/",
    b">f+++++++++|900150983cd24fb0d6963f7d28e17f72|3|2026/11/25-17:43:34|rw-r--r--|0|0|folder/\\#303\\#244",
    b"cL+++++++++||1|2026/11/25-17:43:34|rwxrwxrwx|0|0|folder/link",
)


@pytest.mark.parametrize("where", ["", "folder", "folder/ä", "vanished"])
def test_one_attribute_is_enough(where: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for each in (source, target):
        (each / "folder").mkdir(parents=True)
        (each / "folder/ä").touch()
        (each / "folder/link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").touch()
    os.setxattr(tmp_path / "outside", "user.note", b"x")  # links are not followed
    top = os.open(source, os.O_RDONLY)
    sink, result = io.BytesIO(), Result()
    record = Record(target, [], sink, result, Progress(0), careful=False, plain=top)
    try:
        record.text(b"".join(line + b"\n" for line in PLAIN))
        record.end()
        assert len(sink.getvalue().splitlines()) == len(PLAIN)
        if where == "vanished":  # nobody knows what it had
            (source / "folder/ä").unlink()
        else:
            os.setxattr(source / where, "user.note", b"x")
        with pytest.raises(AttributesFoundError):
            record.text(b"".join(line + b"\n" for line in PLAIN))
    finally:
        os.close(top)


def test_an_open_directory_may_have_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object, **_options: object) -> list[str]:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    top = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not has_attributes(top)
        os.setxattr(tmp_path, "user.note", b"x")
        assert has_attributes(top)
        os.removexattr(tmp_path, "user.note")
        monkeypatch.setattr(os, "listxattr", refused)
        assert has_attributes(top)
    finally:
        os.close(top)


@given(st.binary(min_size=1, max_size=60))
def test_names_survive(path: bytes) -> None:
    assert _backup_files.unescaped(_backup_files.escaped(path)) == path
    assert b"\n" not in _backup_files.escaped(path)


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30)), st.data())
def test_known_digests_whatever_the_order(there: list[int], asked: list[int], data: st.DataObject) -> None:
    def rest(number: int, size: int, mode: bytes = b"rw-r--r--") -> bytes:
        return b"%d|2026/11/25-17:43:34|%b|0|0|n%d" % (size, mode, number)

    lines = [_backup_files.list_line(b"f", b"%032d" % number, rest(number, 1)) for number in there]
    lines.insert(0, b"d||4096|2026/11/25-17:43:34|rwxrwxrwx|0|0|./\n")
    lines.insert(data.draw(st.integers(0, len(lines))), b"f|damaged|1\n")
    lines.append(_backup_files.list_line(b"f", b"%032d" % 99, rest(310, 1))[:-2])
    known = KnownDigests(lines)
    taken: set[int] = set()
    for number in asked:
        size = data.draw(st.sampled_from([1, 1, 1, 2]))
        found = known.find(rest(number, size, data.draw(st.sampled_from([b"rw-r--r--", b"rwx------"]))))
        if number in there and number not in taken:
            assert found == (b"%032d" % number if size == 1 else None)
            taken.add(number)
        else:
            assert found is None
    assert known.find(rest(31, 1)) is None, "a torn line was taken for another"


def test_nodes_of_restic() -> None:
    node = {
        "name": "a", "type": "file", "path": "/data/sub/a", "uid": 1, "gid": 2, "size": 3, "mode": 420 | 1 << 23 | 1
        << 22, "mtime": "2026-11-25T17:43:34.865826959+01:00", "struct_type": "node",
    }  # fmt: skip
    assert _backup_files.of_node(node) == Entry("f", b"sub/a", 3, 1795625014, 0o6644, 1, 2)
    root = {**node, "type": "dir", "path": "/data", "mode": 1 << 31 | 1 << 20 | 0o777, "mtime": "2026-11-25T17:43:34Z"}
    assert _backup_files.of_node(root) == Entry("d", b".", 0, 1795628614, 0o1777, 1, 2)
    kinds = [_backup_files.of_node({**node, "type": kind}) for kind in ("symlink", "dev", "chardev", "fifo", "socket")]
    assert [entry and entry.type for entry in kinds] == list("LDDSS")
    assert _backup_files.of_node({**node, "mtime": "0001-01-01"}).mtime is None  # type: ignore[union-attr]  # it lies in the volume
    for other in (
        {**node, "path": "/objects.json"},
        {**node, "path": "/database"},
        {**node, "struct_type": "snapshot"},
    ):
        assert _backup_files.of_node(other) is None


def entries(root: Path) -> list[Entry]:
    found = []
    for path, is_ in _backup_files.walk(str(root)):
        kind = _backup_files.type_of(is_.st_mode)
        full = os.path.join(os.fsencode(root), path)  # noqa: PTH118 - names are bytes
        digest = (
            _backup_files.digest_of(full) if kind == "f" else _backup_files.digest_of_link(full) if kind == "L" else ""
        )
        found.append(
            Entry(kind, path, is_.st_size, int(is_.st_mtime), is_.st_mode & 0o7777, is_.st_uid, is_.st_gid, digest)
        )
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("content")
    (root / "sub/other").write_text("more")
    (root / "sub/link").symlink_to("../file")
    os.mkfifo(root / "fifo")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_text("odd")
    return root


def test_counting(tree: Path) -> None:
    counts = _backup_files.measured(str(tree))
    assert counts == {"files": 3, "directories": 2, "links": 1, "devices": 0, "specials": 1, "bytes": 14}
    assert _backup_files.digest_of(os.fsencode(tree / "file")) == hashlib.md5(b"content").hexdigest()  # noqa: S324 - as recorded
    assert _backup_files.type_of(0o060600) == "D"


def test_a_tree_that_is_as_recorded(tree: Path) -> None:
    found = _backup_files.compare(str(tree), entries(tree))
    assert (found.compared, found.count, found.words()) == (7, 0, "")


@pytest.mark.parametrize(
    ("change", "words", "damaged"),
    [
        (lambda r: (r / "file").write_text("c0ntent"), "file: has another content than was recorded", 1),
        (lambda r: (r / "file").write_text("cont"), "file: has 4 bytes, not 7", 1),
        (lambda r: (r / "file").unlink(), "file: cannot be looked at: No such file or directory", 0),
        (lambda r: (r / "file").chmod(0o777), "file: has the mode 0777, not 0644", 0),
        (lambda r: os.utime(r / "file", (5, 5)), "file: has the time 5, not", 0),
        (lambda r: (r / "extra").write_text(""), ".: 8 files, directories and links are there, 7 were expected", 0),
        (
            lambda r: ((r / "sub/link").unlink(), (r / "sub/link").symlink_to("other")),
            "sub/link: has another content",
            1,
        ),
        (lambda r: ((r / "fifo").unlink(), (r / "fifo").write_text("")), "fifo: has the type files, not specials", 0),
    ],
)
def test_every_difference_is_found(tree: Path, change: Any, words: str, damaged: int) -> None:
    (tree / "file").chmod(0o644)
    expected = entries(tree)
    times = {path: path.lstat() for path in (tree, tree / "sub", tree / "file")}
    change(tree)
    for path, is_ in times.items():
        if path.exists() and "time" not in words:
            os.utime(path, ns=(is_.st_atime_ns, is_.st_mtime_ns))
    found = _backup_files.compare(str(tree), expected)
    assert words in found.words(), found.words()
    assert len(found.damaged) == damaged


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and reads everything")
def test_owners_are_compared(tree: Path) -> None:
    expected = entries(tree)
    os.chown(tree / "file", 5, 6)
    assert "file: belongs to 5:6, not 0:0" in _backup_files.compare(str(tree), expected).words()
    assert _backup_files.compare(str(tree), expected, attributes=False).count == 0


def test_a_file_that_cannot_be_read_is_damaged(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [one for one in entries(tree) if one.path == b"file"]

    def unreadable(_path: bytes) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(_backup_files, "digest_of", unreadable)
    found = _backup_files.compare(str(tree), expected, whole=False)
    assert (found.words(), found.damaged) == ("file: cannot be read: Input/output error", [b"file"])


def test_names_that_went_through_json(tree: Path) -> None:
    """Go writes one U+FFFD for each byte that is not UTF-8, Python for a run of some."""
    expected = [
        entry._replace(path=entry.path.replace(b"\xff\xfe", "\ufffd\ufffd".encode())) for entry in entries(tree)
    ]
    assert _backup_files.compare(str(tree), expected, lossy=True).count == 0
    assert _backup_files.compare(str(tree), expected).count == 1
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\xfe")).unlink()
    (tree / "instead").write_text("odd")
    os.utime(tree, (expected[0].mtime or 0, expected[0].mtime or 0))
    found = _backup_files.compare(str(tree), expected, lossy=True)
    assert "is not there" in found.words()
    again = [entry for entry in expected if b"\xef" not in entry.path] * 1
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).write_text("odd")
    twice = [*again, *[entry for entry in expected if b"\xef" in entry.path] * 2]
    assert _backup_files.compare(str(tree), twice, whole=False, lossy=True).count >= 1


def test_many_differences_are_shown_in_part(tree: Path) -> None:
    wrong = [Entry("f", b"none%d" % number, 0, 0, 0, 0, 0) for number in range(30)]
    found = _backup_files.compare(str(tree), wrong, whole=False)
    assert found.count == 30 and len(found.differences) == 20
    assert found.words().endswith("; and 25 more")
