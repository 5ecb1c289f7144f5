# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab
from ansible_collections.clusterkit.storage.plugins.module_utils._fstab import Entry
from hypothesis import given
from hypothesis import strategies as st

# Tabs, four to six fields, no newline at the end, a comment that looks like an entry.
FOREIGN = """\
# /etc/fstab: static file system information.
UUID=8d7e-1   /               ext4    errors=remount-ro 0       1

\t/dev/sdb1\t/srv\txfs\tdefaults,prjquota
  # nfs1:/old /data nfs defaults 0 0
nfs1:/a /data nfs rw,hard 0 0
tmpfs /tmp tmpfs defaults,size=1g 0\r
LABEL=swap none swap sw 0 0"""


def changed(content: str, *wanted: Entry) -> str:
    lines = _fstab.parse(content)
    for entry in wanted:
        lines = _fstab.with_entry(lines, entry)
    return _fstab.render(lines)


def test_a_right_line_is_left_as_it_is_written() -> None:
    for line in (
        "nfs1:/a /data nfs rw,hard 0 0\n",
        "nfs1:/a   /data\tnfs\trw,hard",
        "nfs1:/a /data/ nfs rw,hard 0 0 # mine\n",
    ):
        assert changed(line, Entry("nfs1:/a", "/data", "nfs", ("rw", "hard"))) == line
    assert changed("n:/a /d nfs defaults 0 0\n", Entry("n:/a", "/d", "nfs", ())) == "n:/a /d nfs defaults 0 0\n"


def test_only_the_field_that_differs_is_written_anew() -> None:
    before = "# mine\nnfs1:/a   /data\tnfs4  rw,hard  0 0  # why\nnext /x ext4 defaults 0 0\n"
    after = changed(before, Entry("nfs2:/a", "/data", "nfs", ("ro",)))
    assert after == "# mine\nnfs2:/a   /data\tnfs  ro  0 0  # why\nnext /x ext4 defaults 0 0\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nfs1:/b /data/ nfs rw 0 0\n", "nfs1:/a /data/ nfs ro 0 0\n"),
        ("nfs1:/a /data nfs rw 0 0 \t\n", "nfs1:/a /data nfs ro 0 0 \t\n"),
        ("nfs1:/a /data nfs rw 0 0 # X\n", "nfs1:/a /data nfs ro 0 0 # X\n"),
        ("nfs1:/a /data nfs rw 0 0\r\n", "nfs1:/a /data nfs ro 0 0\r\n"),
        ("nfs1:/a /data nfs #rw\n", "nfs1:/a /data nfs ro 0 0\n"),
        # Neither is a blank: it is the source.
        ("X /data nfs ro 0 0\n", "nfs1:/a /data nfs ro 0 0\n"),
        ("\x0b /data nfs ro 0 0\n", "nfs1:/a /data nfs ro 0 0\n"),
        # What libmount ignores, since the fifth or sixth field is no number, is repaired.
        ("nfs1:/a  /data nfs ro x 2 more\n", "nfs1:/a  /data nfs ro 0 2 more\n"),
        ("nfs1:/a /data nfs rw\t1 # later\n", "nfs1:/a /data nfs ro\t1 0 later\n"),
        ("nfs1:/a /data nfs ro 1 x\r\n", "nfs1:/a /data nfs ro 1 0\n"),
        ("nfs1:/a /data nfs ro 1.0 2\r\n", "nfs1:/a /data nfs ro 0 2\r\n"),
    ],
)
def test_what_stands_around_the_fields_stays(before: str, after: str) -> None:
    wanted = Entry("nfs1:/a", "/data", "nfs", ("ro",))
    assert changed(before, wanted) == after
    assert changed(after, wanted) == after


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("#n:/a /data nfs ro 0 0\n", None),
        ("n:/a /data\n", None),
        ("n:/a /data nfs\n", Entry("n:/a", "/data", "nfs", ())),
        ("n:/a /data nfs #ro\n", Entry("n:/a", "/data", "nfs", ("#ro",))),
        ("n:/a /data nfs # 0 0\n", Entry("n:/a", "/data", "nfs", ("#",))),
        ("n:/a /data nfs X\n", Entry("n:/a", "/data", "nfs", ("X",))),
        ("n:/a /data nfs\r\n", Entry("n:/a", "/data", "nfs", ())),
        ("n:/a /data \r nfs\n", Entry("n:/a", "/data", "\r", ("nfs",))),
        ("n:/a //data///X/ nfs ro\n", Entry("n:/a", "/data/X", "nfs", ("ro",))),
        ("n:/ // nfs ro\n", Entry("n:/", "/", "nfs", ("ro",))),
        ("swap none// swap sw\n", Entry("swap", "none//", "swap", ("sw",))),
        ("n:/a /data nfs ro +1 -2\r\n", Entry("n:/a", "/data", "nfs", ("ro",))),
        ("n:/a /data nfs ro 0 0 more\n", Entry("n:/a", "/data", "nfs", ("ro",))),
        ("n:/a /data nfs ro 0x 0\n", Entry("n:/a", "/data", "nfs", ("ro",), numbers=False)),
        ("n:/a /data nfs ro 0 #0\n", Entry("n:/a", "/data", "nfs", ("ro",), numbers=False)),
        ("n:/a /data nfs ro +\n", Entry("n:/a", "/data", "nfs", ("ro",), numbers=False)),
    ],
)
def test_a_line_is_read_as_libmount_reads_it(text: str, entry: Entry | None, tmp_path: Path) -> None:
    assert [line.entry for line in _fstab.parse(text)] == [entry]
    fstab = tmp_path / "fstab"
    fstab.write_bytes(text.encode())
    command = ["findmnt", "--tab-file", str(fstab), "--json", "--output", "SOURCE,TARGET,FSTYPE,OPTIONS"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # What is no entry is none there, too, nor what lacks numbers; and no file system at all is an error of findmnt.
    found = json.loads(shown)["filesystems"] if shown else []
    assert [(one["source"], _fstab._normal(one["target"]), one["fstype"], one["options"]) for one in found] == (
        [(entry.source, entry.path, entry.fstype, ",".join(entry.options) or None)] if entry and entry.numbers else []
    )


def test_changed_lines_are_known_without_reading_them_again() -> None:
    wanted, other = Entry("nfs1:/a", "/data", "nfs", ("ro",)), Entry("nfs1:/b", "/new", "nfs", ())
    lines = _fstab.with_entry(_fstab.with_entry(_fstab.parse("nfs1:/a /data nfs rw 0 0"), wanted), other)
    assert [line.entry for line in lines] == [wanted, other]
    lines = _fstab.with_entry(_fstab.parse("nfs1:/a /data nfs ro 0 0"), other)
    assert [line.entry for line in lines] == [wanted, other]


def test_a_line_without_options_gets_them() -> None:
    assert changed("nfs1:/a /data nfs\n", Entry("nfs1:/a", "/data", "nfs", ("ro",))) == "nfs1:/a /data nfs ro 0 0\n"


def test_a_new_line_does_not_join_a_last_one_without_newline() -> None:
    after = changed(FOREIGN, Entry("nfs1:/b", "/new", "nfs", ()))
    assert after == FOREIGN + "\nnfs1:/b /new nfs defaults 0 0\n"


def test_a_second_line_of_the_same_mount_point_goes() -> None:
    # Both would be mounted at boot, one over the other.
    before = "a:/1 /data nfs ro 0 0\nx /y ext4 defaults 0 0\na:/2 /data nfs4 ro 0 0\n"
    assert changed(before, Entry("a:/1", "/data", "nfs", ("ro",))) == "a:/1 /data nfs ro 0 0\nx /y ext4 defaults 0 0\n"


def test_removing_takes_only_nfs_lines_of_that_mount_point() -> None:
    left = _fstab.render(_fstab.without_entry(_fstab.parse(FOREIGN), "/data"))
    assert left == FOREIGN.replace("nfs1:/a /data nfs rw,hard 0 0\n", "")
    assert _fstab.render(_fstab.without_entry(_fstab.parse(FOREIGN), "/srv")) == FOREIGN


def test_comments_are_no_entries() -> None:
    assert [entry.source for entry in _fstab.entries_at(_fstab.parse(FOREIGN), "/data")] == ["nfs1:/a"]


def test_names_are_escaped_as_fstab_wants_it() -> None:
    line = changed("", Entry("#s:/a b", "/m\tx\\040\n", "nfs", ()))
    assert line == "\\043s:/a\\040b /m\\011x\\134040\\012 nfs defaults 0 0\n"


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
FIELD = st.one_of(
    st.text(st.sampled_from(" \t\n\\0124#\r\x0b\x85\u2028ä漢a/"), min_size=1, max_size=40),
    st.text(CHARACTERS, min_size=1, max_size=40),
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape")),
    st.just("y" * 5000),
)
OPTION = st.sampled_from(["rw", "hard", "rsize=8192", "x-a=b c", 'context="a,b"', "comment=#\\040"])
ENTRY = st.builds(
    Entry,
    FIELD.map(lambda name: "server:/" + name),
    FIELD.map(lambda name: _fstab._normal("/" + name)),
    st.just("nfs"),
    st.lists(OPTION, max_size=4).map(tuple),
)
LINE = st.one_of(
    st.sampled_from(FOREIGN.split("\n")),
    st.text(st.sampled_from(" \t#abc/\\0\r\x0b\x85"), max_size=30),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"").decode("utf-8", "surrogateescape")),
)
CONTENT = st.tuples(st.lists(LINE, max_size=8), st.booleans()).map(
    lambda made: "\n".join(made[0]) + ("\n" if made[1] else "")
)


@given(CONTENT)
def test_reading_and_writing_changes_no_byte(content: str) -> None:
    assert _fstab.render(_fstab.parse(content)) == content


@given(CONTENT, st.lists(ENTRY, min_size=1, max_size=3))
def test_what_is_written_is_read_again_and_a_second_run_changes_nothing(content: str, wanted: list[Entry]) -> None:
    once = changed(content, *wanted)
    for entry in {each.path: each for each in wanted}.values():
        nfs = [each for each in _fstab.entries_at(_fstab.parse(once), entry.path) if each.is_nfs]
        assert nfs == [entry]
    last_of_each = {each.path: each for each in wanted}.values()
    assert changed(once, *last_of_each) == once


@given(CONTENT, ENTRY)
def test_foreign_lines_stay_byte_for_byte_in_their_order(content: str, wanted: Entry) -> None:
    def foreign(text: str) -> list[str]:
        return [
            line.text.rstrip("\n")
            for line in _fstab.parse(text)
            if line.entry is None or not line.entry.is_nfs or line.entry.path != wanted.path
        ]

    with_it = changed(content, wanted)
    assert foreign(with_it) == foreign(content)
    without = _fstab.render(_fstab.without_entry(_fstab.parse(with_it), wanted.path))
    assert foreign(without) == foreign(content)


@pytest.mark.parametrize("name", ["a b", "tab\there", "back\\slash", "\\040", "#hash", "ünï", "a,b", "new\nline"])
def test_util_linux_reads_what_we_write(name: str, tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text(changed("", Entry(f"server:/{name}", f"/m/{name}", "nfs", ("rw", "hard"))))
    shown = subprocess.run(
        ["findmnt", "--fstab", "--tab-file", str(fstab), "--json", "--output", "SOURCE,TARGET,OPTIONS"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (found,) = json.loads(shown)["filesystems"]
    assert found == {"source": f"server:/{name}", "target": f"/m/{name}", "options": "rw,hard"}
