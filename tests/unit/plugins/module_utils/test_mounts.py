# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from hypothesis import given
from hypothesis import strategies as st

NFS = "rw,vers=4.2,rsize=131072,wsize=131072,hard,proto=tcp,timeo=600,retrans=2,sec=sys,addr=192.168.78.1"
# Lines as a Debian 13 machine shows them.
SEEN = f"""\
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
24 29 0:22 / /proc rw,nosuid shared:14 - proc proc rw
41 24 0:36 / /proc/sys/fs/binfmt_misc rw,relatime shared:15 master:3 - autofs systemd-1 rw,fd=37,pgrp=1,timeout=0
62 29 0:53 / /m/1 rw,relatime shared:177 - nfs4 192.168.78.1:/nfs/k8s/a {NFS}
67 29 0:53 / /m/with\\040blank rw,relatime - nfs4 192.168.78.1:/nfs/k8s/a/sub\\040dir {NFS}
68 62 0:55 / /m/1 rw,relatime shared:186 - tmpfs  rw,inode64
"""


def table(text: str = SEEN) -> MountTable:
    return MountTable(_mounts.parse(text))


def test_escapes_and_optional_fields_are_understood() -> None:
    mount = table().mounts[4]
    assert (mount.path, mount.source) == ("/m/with blank", "192.168.78.1:/nfs/k8s/a/sub dir")
    assert mount.optional == ()
    assert table().mounts[2].optional == ("shared:15", "master:3")
    assert mount.is_nfs
    assert mount.server_address == "192.168.78.1"


def test_fields_are_where_the_kernel_has_them() -> None:
    line = "62 29 0:53 /a\\040b /m rw,relatime shared:1 - xfs /dev/sdb rw,prjquota and more of newer kernels\n"
    assert table(line).mounts == [
        Mount(62, 29, "0:53", "/a b", "/m", ("rw", "relatime"), ("shared:1",), "xfs", "/dev/sdb", ("rw", "prjquota"))
    ]


def test_an_empty_source_does_not_shift_the_fields() -> None:
    assert (table().mounts[5].source, table().mounts[5].super_options) == ("", ("rw", "inode64"))


def test_this_machine_can_be_read() -> None:
    mine = _mounts.read()
    assert mine.find("/proc").top is not None
    assert len(mine.mounts) == len(Path("/proc/self/mountinfo").read_text().splitlines())


def test_names_that_are_no_text_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(b"1 0 0:1 / /\xff rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(_mounts, "MOUNTINFO", str(tmp_path / "mountinfo"))
    assert [os.fsencode(mount.path) for mount in _mounts.read().mounts] == [b"/\xff"]


def test_a_line_that_is_not_understood_is_shown() -> None:
    with pytest.raises(ValueError, match="cannot understand '29 1 what'"):
        _mounts.parse("29 1 what\n")


def test_what_is_mounted_over_another_mount_is_on_top() -> None:
    place = table().find("/m/1")
    assert [mount.fstype for mount in place.stack] == ["nfs4", "tmpfs"]
    assert place.top is not None
    assert place.top.fstype == "tmpfs"
    assert place.inside is not None
    assert place.inside.path == "/"


def test_a_path_inside_a_mount_is_told_from_a_mount_point() -> None:
    place = table().find("/m/with blank/deeper")
    assert place.stack == ()
    assert place.inside is not None
    assert place.inside.path == "/m/with blank"


def test_a_name_that_begins_alike_is_another_path() -> None:
    assert table().find("/m/10").stack == ()
    inside = table().find("/m/10").inside
    assert inside is not None
    assert inside.path == "/"


def test_a_mount_hidden_below_a_later_one_is_not_found() -> None:
    hidden = SEEN + "70 29 0:60 / /m rw - tmpfs tmpfs rw\n"
    assert table(hidden).find("/m/1").stack == ()


def test_order_of_the_lines_does_not_matter() -> None:
    backwards = "\n".join(reversed(SEEN.splitlines())) + "\n"
    assert table(backwards).find("/m/1") == table().find("/m/1")


def test_mounts_of_one_superblock_and_of_one_server_are_found() -> None:
    other = SEEN + f"71 29 0:59 / /m/2 rw - nfs4 192.168.78.1:/nfs/k8s/b {NFS}\n"
    mine = table(other).mounts[3]
    assert [mount.path for mount in table(other).sharing_superblock(mine)] == ["/m/with blank"]
    assert [mount.path for mount in table(other).sharing_server(mine)] == ["/m/with blank", "/m/2"]


def test_symlinks_are_followed_but_nothing_on_a_server_is_touched() -> None:
    links = {"/data": "/m", "/m/with blank": None, "/home": "srv/home", "/srv/home": "../m/1"}
    asked = []

    def read_link(path: str) -> str | None:
        asked.append(path)
        return links.get(path)

    assert table().resolve("/data/with blank/link/x", read_link) == "/m/with blank/link/x"
    assert table().resolve("/home", read_link) == "/m/1"
    assert table().resolve("/data/1", read_link) == "/m/1"
    assert not any(path.startswith(("/m/1", "/m/with blank")) for path in asked)


def test_symlinks_in_a_circle_are_an_error() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        table().resolve("/a/b", {"/a": "/c", "/c": "/a"}.get)


def test_real_symlinks_are_resolved_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "up").symlink_to("link/../real")
    resolved = _mounts.read().resolve(str(tmp_path / "up" / "not there"))
    assert resolved == os.path.realpath(tmp_path / "up" / "not there")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("nfs1:/a b", ("nfs1", "/a b")),
        ("[fe80::1%eth0]:/x", ("fe80::1%eth0", "/x")),
        ("nfs1:/", ("nfs1", "/")),
        ("fe80::1:/x", None),
        ("nfs1:x", None),
        (":/x", None),
        ("[fe80::1]/x", None),
        ("/dev/sda", None),
    ],
)
def test_sources_are_split(source: str, parts: tuple[str, str] | None) -> None:
    assert _mounts.split_source(source) == parts


# Names as somebody could make them: blanks, tabs, newlines, backslashes, digits after them, bytes that are not UTF-8.
NAME = st.one_of(
    st.text(st.sampled_from(" \t\n\\0129#ä漢a"), min_size=1, max_size=40),
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape")),
    st.just("x" * 4000),
)
PATH = st.lists(NAME.map(lambda name: name.replace("/", "_")).filter(lambda name: name not in (".", "..")), max_size=4)


def as_the_kernel_writes(text: str) -> str:
    """Escape like mangle() and show_mountinfo() of the kernel."""
    return "".join(f"\\{ord(character):03o}" if character in " \t\n\\#" else character for character in text)


@given(st.lists(st.tuples(PATH, NAME), min_size=1, max_size=6))
def test_whatever_the_names_are_they_come_back(names: list[tuple[list[str], str]]) -> None:
    lines, expected = [], []
    for number, (parts, source) in enumerate(names, start=10):
        path = "/" + "/".join(parts)
        expected.append((path, f"server:/{source}"))
        lines.append(
            f"{number} 1 0:{number} / {as_the_kernel_writes(path)} rw - nfs4 "
            f"server:/{as_the_kernel_writes(source)} rw,addr=10.0.0.1\n"
        )
    assert [(mount.path, mount.source) for mount in _mounts.parse("".join(lines))] == expected


FOLDERS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(FOLDERS, max_size=8), FOLDERS)
def test_a_lookup_ends_where_the_last_mount_made_on_the_way_is(paths: list[str], wanted: str) -> None:
    # Each mount is made where a lookup of its path leads at that time, as the kernel does; the model remembers for
    # each folder of each mount what was put there last.
    root = Mount(1, 0, "0:1", "/", "/", (), (), "ext4", "/dev/root", ())
    mounts = [root]
    on: dict[tuple[int, str], int] = {}

    def walk(path: str) -> int:
        current = on_top(1, "/")
        parts = [part for part in path.split("/") if part]
        for count in range(len(parts)):
            current = on_top(current, "/" + "/".join(parts[: count + 1]))
        return current

    def on_top(current: int, path: str) -> int:
        while (current, path) in on:
            current = on[current, path]
        return current

    for number, path in enumerate(paths, start=2):
        parent = walk(path)
        mounts.append(Mount(number, parent, f"0:{number}", "/", path, (), (), "tmpfs", "", ()))
        on[parent, path] = number
    place = MountTable(reversed(mounts)).find(wanted)
    reached = place.top or place.inside
    assert reached is not None
    assert reached.mount_id == walk(wanted)
    assert all(mount.path == wanted for mount in place.stack)


def test_what_sits_on_a_mount_is_found_directly_and_further_up() -> None:
    seen = table()
    root, one, blank, tmpfs = (next(m for m in seen.mounts if m.mount_id == number) for number in (29, 62, 67, 68))
    assert [mount.mount_id for mount in seen.below(one)] == [68]
    assert [mount.mount_id for mount in seen.below(root)] == [24, 62, 67]
    assert seen.below(tmpfs) == []
    assert seen.sits_on(tmpfs, one)
    assert seen.sits_on(tmpfs, root)
    assert not seen.sits_on(one, tmpfs)
    assert not seen.sits_on(blank, one)
    # A mount that is its own parent, as the root of a namespace may be, is no endless way.
    circle = table("1 1 0:1 / / rw - tmpfs tmpfs rw\n2 1 0:2 / /a rw - tmpfs tmpfs rw\n")
    assert circle.below(circle.mounts[0]) == [circle.mounts[1]]
    assert not circle.sits_on(circle.mounts[0], circle.mounts[1])


def test_links_are_followed_from_where_they_lie() -> None:
    links = {"/a/up": "../b/./c", "/a/far": "/x/y", "/b/c": "d//e", "/loop": "loop"}
    resolve = table("1 0 0:1 / / rw - ext4 /dev/x rw\n").resolve
    for path, real in (
        ("/a/up/f", "/b/d/e/f"),
        ("/a/far/f", "/x/y/f"),
        ("/a/./g/../h", "/a/h"),
        ("/..", "/"),
        ("//a///g/", "/a/g"),
    ):
        assert resolve(path, links.get) == real
    with pytest.raises(OSError, match="/loop") as caught:
        resolve("/loop", links.get)
    assert caught.value.errno == errno.ELOOP
    # As many as the kernel follows, and not one more.
    chain = {f"/{number}": f"/{number + 1}" for number in range(41)}
    assert resolve("/1", chain.get) == "/41"
    with pytest.raises(OSError, match="/0"):
        resolve("/0", chain.get)


def test_names_that_begin_alike_are_not_within_each_other() -> None:
    assert _mounts.is_within("/data", "/data")
    assert _mounts.is_within("/data/f", "/data/")
    assert _mounts.is_within("/data", "/")
    assert not _mounts.is_within("/data2", "/data")
    assert not _mounts.is_within("/data/f", "/dataX")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("nfs1:/srv/a", ("nfs1", "/srv/a")),
        ("nfs1:/a:b", ("nfs1", "/a:b")),
        ("[fe80::1]:/srv", ("fe80::1", "/srv")),
        ("[fe80::1]:/a]b", ("fe80::1", "/a]b")),
        ("[fe80::1]x/srv", None),
        ("[fe80::1:/srv", None),
        ("[fe80::1]:srv", None),
        ("nfs1:srv", None),
        (":/srv", None),
        ("/dev/sda1", None),
    ],
)
def test_a_source_is_a_host_and_a_path(source: str, parts: tuple[str, str] | None) -> None:
    assert _mounts.split_source(source) == parts


@pytest.mark.parametrize(("path", "normal"), [("//a///bX//", "/a/bX"), ("/", "/"), ("//", "/"), ("/a", "/a")])
def test_an_exported_path_has_one_form(path: str, normal: str) -> None:
    assert _mounts.export_path(path) == normal
