# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths made to lead a remover astray: whatever they are, nothing outside the volume's own directory changes.

Each case is run with the kernel's own rules (openat2) and without. The whole tree around the volume is hashed before
and after; where the step is refused, the volume too.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, fill, mount, objects, tree

Step = dict[str, Any]
ANYWHERE = {"device": 1, "inode": 4711}


@dataclass
class Case:
    name: str
    arrange: Callable[[World], Any]  # returns steps, or steps and more arguments
    expected: str  # the state of the first step; "arguments" when the arguments are refused
    words: str = ""
    state: str = "quarantined"


CASES: list[Case] = []


def case(name: str, expected: str, words: str = "", state: str = "quarantined") -> Callable[..., Any]:
    def add(arrange: Callable[[World], Any]) -> Callable[[World], Any]:
        CASES.append(Case(name, arrange, expected, words, state))
        return arrange

    return add


def literal(world: World, path: str) -> list[Step]:
    return [{"id": "1", "share": str(world.share), "directory": path, "precondition": ANYWHERE}]


# --- what a path may look like -----------------------------------------------------------------------------

for _name, _path, _words in (
    ("two dots first", "{share}/../outside", '".."'),
    ("two dots last", "{share}/volume/..", '".."'),
    ("two dots and back", "{share}/volume/../volume", '".."'),
    ("two dots out and in", "{share}/../k8s/volume", '".."'),
    ("dot in the middle", "{share}/./volume", '"."'),
    ("dot last", "{share}/volume/.", '"."'),
    ("empty part of a pattern", "{share}//volume", "an empty part"),
    ("trailing slash", "{share}/volume/", "an empty part"),
    ("two slashes first", "/{share}/volume", "an empty part"),
    ("the share with a slash", "{share}/", "an empty part"),
    ("the share itself", "{share}", "root of the share"),
    ("the disk", "{disk}", "does not lie in"),
    ("the root of everything", "/", "does not lie in"),
    ("etc", "/etc", "does not lie in"),
    ("a neighbour with the same beginning", "{share}-2/volume", "does not lie in"),
    ("through proc", "/proc/self/root{share}/volume", "does not lie in"),
    ("relative", "volume", "is not absolute"),
    ("relative with dots", "../../etc", "is not absolute"),
    ("home", "~/volume", "is not absolute"),
    ("zero byte", "{share}/volume\0/../x", "zero byte"),
    ("256 bytes", "{share}/" + "x" * 256, "more than 255 bytes"),
    ("256 bytes in 128 characters", "{share}/" + "ü" * 128, "more than 255 bytes"),
    ("our own folder", "{share}/.clusterkit", "lies in .clusterkit"),
    ("our own trash", "{share}/.clusterkit/trash", "lies in .clusterkit"),
    ("our own folder, deeper", "{share}/a/.clusterkit/b", "lies in .clusterkit"),
):
    case(_name, "arguments", _words)(
        lambda w, p=_path: literal(w, p.replace("{share}", str(w.share)).replace("{disk}", str(w.disk)))
    )

# Names that mean something to a shell, a URL or another system, and nothing to the kernel: there is no such directory.
for _name in (
    "%2e%2e",
    "..%2f..",
    "\uff0e\uff0e",
    ".. ",
    "..\\",
    "$HOME",
    "`id`",
    "$(id)",
    "~",
    "*",
    "?",
    "{a,b}",
    "....",
    "volume ",
):
    case(f"means nothing: {_name!r}", "gone")(lambda w, n=_name: literal(w, f"{w.share}/{n}"))

# Names that are odd, and right.
for _name in (
    *(
        "new\nline",
        "\n",
        "bell\x07",
        "\x1b[2J",
        "tab\t",
        " blank",
        "blank ",
        "-rf",
        "--",
        "*",
        "?",
        "'",
        '"',
        "\\",
        ";rm -rf ~",
    ),
    *(
        "..hidden",
        "...",
        "x" * 255,
        "ü" * 127,
        "e\u0301",
        "\u202etxt",
        "\udcff\udcfe",
        "VOLUME",
        "data",
        "manifest.json",
    ),
    *("archived-x", ".nfs000000000000a", "lost+found", "a:b", "C:", "$HOME", "%s%n"),
):

    @case(f"odd and right: {_name!r}"[:60], "changed")
    def _odd(world: World, name: str = _name) -> list[Step]:
        (world.share / "volume").rename(world.share / name)
        return [world.step(world.share / name)]


@case("case twins", "changed")
def _twins(world: World) -> list[Step]:
    fill(world.share / "Volume")
    return [world.step(world.share / "volume")]


@case("twins of normal forms", "changed")
def _forms(world: World) -> list[Step]:
    fill(world.share / "\u00e9")
    (world.share / "volume").rename(world.share / "e\u0301")
    return [world.step(world.share / "e\u0301")]


@case("a path of more than 4,096 bytes", "changed")
def _long(world: World) -> list[Step]:
    parts = ["d" * 200] * 25
    directory = os.open(world.share, os.O_RDONLY)
    for part in parts:
        os.mkdir(part, dir_fd=directory)
        directory = os.open(part, os.O_RDONLY, dir_fd=directory)
    os.mkdir("volume", dir_fd=directory)
    found = os.stat("volume", dir_fd=directory)
    step = literal(world, "/".join((str(world.share), *parts, "volume")))[0]
    return [{**step, "precondition": {"device": found.st_dev, "inode": found.st_ino}}]


# --- links -------------------------------------------------------------------------------------------------


def link(world: World, place: str, target: str | Path, rest: str = "") -> list[Step]:
    """A link at a place below the share, and a step that goes through it, with the precondition of what it leads to."""
    path = world.share / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    there = path / rest if rest else path
    try:
        found = there.stat()
        precondition = {"device": found.st_dev, "inode": found.st_ino}
    except OSError:
        precondition = ANYWHERE
    return [world.step(there, precondition=precondition)]


for _name, _place, _target, _rest in (
    ("a link to the outside", "link", "{outside}", ""),
    ("a link to the outside above", "link", "{outside}", "sub"),
    ("a link to the outside two above", "link", "{outside}", "sub/deeper"),
    ("a link on the second level", "a/link", "{outside}", ""),
    ("a link on the second level above", "a/link", "{outside}", "sub"),
    ("a link on the third level", "a/b/link", "{outside}", "sub"),
    ("a link on the sixth level", "a/b/c/d/e/link", "{outside}", "sub"),
    ("a relative link", "link", "../precious", ""),
    ("a relative link above", "link", "../precious", "sub"),
    ("a link to a neighbour", "link", "neighbour", ""),
    ("a link to a neighbour above", "link", "neighbour", "sub"),
    ("a link to the volume", "link", "volume", ""),
    ("a link to the share", "link", ".", ""),
    ("a link to the share above", "link", ".", "volume"),
    ("a link to the disk", "link", "..", ""),
    ("a link to the disk above", "link", "..", "precious"),
    ("a link to the root", "link", "/", ""),
    ("a link to the root above", "link", "/", "etc"),
    ("a link to our own folder", "link", "{own}", ""),
    ("a link to our own folder above", "link", "{own}", "trash"),
    ("a link through proc", "link", "/proc/self/root{outside}", "sub"),
    ("a link through an own descriptor", "link", "/proc/self/cwd", ""),
):
    case(_name, "refused", "symbolic link")(
        lambda w, p=_place, t=_target, r=_rest: link(
            w, p, t.replace("{outside}", str(w.outside)).replace("{own}", str(w.own)), r
        )
    )

case("a link to itself", "refused", "symbolic link")(lambda w: link(w, "link", "link"))
case("a link to nothing", "refused", "symbolic link")(lambda w: link(w, "link", "nothing"))
case("a link to nothing above", "refused", "symbolic link")(lambda w: link(w, "link", "nothing", "x"))
case("a link to a file", "refused", "symbolic link")(lambda w: link(w, "link", "volume/file"))


@case("the share is a link", "arguments", "is a symbolic link; name the directory itself")
def _share_link(world: World) -> Any:
    (world.disk / "alias").symlink_to("k8s")
    share = str(world.disk / "alias")
    step = world.step(world.share / "volume")
    return [{**step, "share": share, "directory": f"{share}/volume"}], {"shares": [share]}


@case("a link above the share", "arguments", "is a symbolic link; name the directory itself")
def _above_link(world: World) -> Any:
    (world.folder / "alias").symlink_to("disk")
    share = str(world.folder / "alias/k8s")
    step = world.step(world.share / "volume")
    return [{**step, "share": share, "directory": f"{share}/volume"}], {"shares": [share]}


@case("links and hard links in it", "changed")
def _inside(world: World) -> list[Step]:
    volume = world.share / "volume"
    (volume / "out").symlink_to(world.outside)
    (volume / "up").symlink_to("../..")
    os.link(world.share / "neighbour/file", volume / "hard")
    return [world.step(volume)]


# --- no directories ----------------------------------------------------------------------------------------


def instead(world: World, make: Callable[[Path], Any]) -> list[Step]:
    """Something else in place of the directory, with the precondition of what stands there now."""
    path = world.share / "thing"
    make(path)
    return [world.step(path)]


case("a file", "refused", "is no directory")(lambda w: instead(w, lambda p: p.write_text("x")))
case("a pipe", "refused", "is no directory")(lambda w: instead(w, os.mkfifo))
case("a device", "refused", "is no directory")(lambda w: instead(w, lambda p: os.mknod(p, 0o20600, os.makedev(1, 5))))
case("a hard link", "refused", "is no directory")(
    lambda w: instead(w, lambda p: os.link(w.share / "neighbour/file", p))
)
case("a silly-renamed file of a client", "refused", "is no directory")(
    lambda w: [w.step((w.share / "volume/file").rename(w.share / ".nfs0000000000a1b2c300000001"))]
)
case("a file above", "failed", "Not a directory")(
    lambda w: [w.step(w.share / "neighbour/file/x", precondition=ANYWHERE)]
)


@case("a socket", "refused", "is no directory")
def _socket(world: World) -> list[Step]:
    os.chdir(world.share)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("thing")
    os.chdir("/")
    return [world.step(world.share / "thing")]


@case("a directory replaced by a file", "refused", "is no directory")
def _replaced(world: World) -> list[Step]:
    step = world.step(world.share / "volume")
    (world.share / "volume").rename(world.share / "moved")
    (world.share / "volume").write_text("x")
    return [step]


@case("a directory replaced by another", "stale", "is not what was planned")
def _another(world: World) -> list[Step]:
    step = world.step(world.share / "volume")
    (world.share / "volume").rename(world.share / "moved")
    fill(world.share / "volume")
    return [step]


@case("a directory replaced by a link to itself", "refused", "symbolic link")
def _relinked(world: World) -> list[Step]:
    step = world.step(world.share / "volume")
    (world.share / "volume").rename(world.share / "moved")
    (world.share / "volume").symlink_to("moved")
    return [step]


for _name, _condition, _state, _words in (
    ("another inode", {"inode": 1}, "stale", "inode 1 expected"),
    ("another device", {"device": 1}, "stale", "device 1"),
    ("inode zero", {"inode": 0}, "arguments", "precondition"),
    ("a negative inode", {"inode": -5}, "arguments", "precondition"),
):

    @case(_name, _state, _words)
    def _condition_case(world: World, condition: dict[str, Any] = _condition) -> list[Step]:
        step = world.step(world.share / "volume")
        step["precondition"].update(condition)
        return [step]


case("no precondition", "arguments", "precondition is missing")(
    lambda w: [{key: value for key, value in w.step(w.share / "volume").items() if key != "precondition"}]
)
case("another share", "arguments", "is none of shares")(
    lambda w: [{**w.step(w.share / "volume"), "share": str(w.disk)}]
)
case("the share / ", "arguments", "the root of the file system is no share")(
    lambda w: ([{**w.step(w.share / "volume"), "share": "/"}], {"shares": ["/"]})
)
case("a share with dots", "arguments", '".."')(
    lambda w: ([{**w.step(w.share / "volume"), "share": f"{w.share}/.."}], {"shares": [f"{w.share}/.."]})
)
case("a uid that is a path", "arguments", "is no uid")(lambda w: [w.of_volume(w.share / "volume", uid="../../x")])
case("a volume without intent", "refused", "no open intent")(lambda w: [w.of_volume(w.share / "volume")])


# --- mounts ------------------------------------------------------------------------------------------------


def mounted(world: World, place: str, what: str, step: str) -> list[Step]:
    point = world.share / place
    point.mkdir(parents=True, exist_ok=True)
    if what == "tmpfs":
        mount("-t", "tmpfs", "tmpfs", point)
        fill(point / "inner")
    else:
        mount("--bind", world.folder / what, point)
    return [world.step(world.share / step)]


for _name, _place, _what, _step in (
    ("another file system at it", "volume", "tmpfs", "volume"),
    ("another file system above", "above", "tmpfs", "above/inner"),
    ("another file system in it", "volume/sub", "tmpfs", "volume"),
    ("another file system deep in it", "volume/sub/deeper", "tmpfs", "volume"),
    ("a bind mount at it", "volume", "disk/k8s/neighbour", "volume"),
    ("a bind mount above", "above", "disk/k8s/neighbour", "above/sub"),
    ("a bind mount in it", "volume/sub", "disk/k8s/neighbour", "volume"),
    ("a bind mount of the outside above", "above", "outside", "above/sub"),
    ("a bind mount of the outside in it", "volume/sub", "outside", "volume"),
    ("a bind mount of itself at it", "volume", "disk/k8s/volume", "volume"),
    ("a bind mount of the share above", "above", "disk/k8s", "above/volume"),
):
    case(_name, "refused", "mount point")(lambda w, p=_place, t=_what, s=_step: mounted(w, p, t, s))


# --- what other volumes lie in -----------------------------------------------------------------------------

case("the parent of a volume", "refused", "holds")(
    lambda w: ([w.step(w.share / "volume")], {"keep": [f"{w.share}/volume/sub"]})
)
case("the parent of a volume, deeper", "refused", "holds")(
    lambda w: ([w.step(w.share / "volume")], {"keep": [f"{w.share}/a", f"{w.share}/volume/sub/deeper", f"{w.share}/z"]})
)
case("shared by two volumes", "refused", "of another volume or share, too")(
    lambda w: ([w.step(w.share / "volume")], {"keep": [f"{w.share}/volume"]})
)
case("a share in a share", "refused", "holds")(
    lambda w: ([w.step(w.share / "volume")], {"shares": [str(w.share), f"{w.share}/volume/sub"]})
)
case("a share at it", "refused", "of another volume or share, too")(
    lambda w: ([w.step(w.share / "volume")], {"shares": [str(w.share), f"{w.share}/volume"]})
)
case("two steps, one in the other", "refused", "holds")(
    lambda w: [w.step(w.share / "volume"), w.step(w.share / "volume/missing", precondition=ANYWHERE)]
)
case("the same step twice", "refused", "in more than one step")(
    lambda w: [w.step(w.share / "volume"), w.step(w.share / "volume")]
)


@case("the parent of an intent", "refused", "holds")
def _intent_below(world: World) -> list[Step]:
    world.run("intended", world.of_volume(world.share / "volume/sub", uid="9-9", objects=objects("9-9")))
    return [world.step(world.share / "volume")]


@case("intended for another volume", "refused", "is about to be quarantined as the directory of volume")
def _intent_same(world: World) -> list[Step]:
    world.run("intended", world.of_volume(world.share / "volume", uid="9-9", objects=objects("9-9")))
    return [world.of_volume(world.share / "volume", uid="8-8")]


@case("a neighbour with a longer name is no child", "changed")
def _longer(world: World) -> Any:
    fill(world.share / "volume-2")
    return [world.step(world.share / "volume")], {"keep": [f"{world.share}/volume-2", f"{world.share}/volume.d/x"]}


# --- rights ------------------------------------------------------------------------------------------------


@case("an unreadable directory", "changed")
def _unreadable(world: World) -> list[Step]:
    os.chown(world.share / "volume", 1000, 1000)
    (world.share / "volume").chmod(0)
    return [world.step(world.share / "volume")]


@case("setuid, setgid, sticky", "changed")
def _bits(world: World) -> list[Step]:
    (world.share / "volume").chmod(0o7777)
    return [world.step(world.share / "volume")]


@case("an immutable directory", "failed", "not permitted")
def _immutable(world: World) -> list[Step]:
    subprocess.run(["chattr", "+i", world.share / "volume"], check=True)
    return [world.step(world.share / "volume")]


# --- what a client puts where our folder belongs -----------------------------------------------------------


def make_directory(path: Path, mode: int, owner: int) -> None:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)


def folder_is(world: World, make: Callable[[Path], Any]) -> list[Step]:
    (world.own / "share.json").unlink()
    world.own.rename(world.disk / "was-ours")
    make(world.disk / OWN)
    return [world.step(world.share / "volume")]


case("our folder is a link", "arguments", "is no plain directory")(
    lambda w: folder_is(w, lambda p: p.symlink_to(w.outside))
)
case("our folder is a file", "arguments", "is no plain directory")(lambda w: folder_is(w, lambda p: p.write_text("x")))
case("our folder is a pipe", "arguments", "is no plain directory")(lambda w: folder_is(w, os.mkfifo))
case("our folder is somebody else's", "arguments", "belongs to user 1000")(
    lambda w: folder_is(w, lambda p: make_directory(p, 0o700, 1000))
)
case("our folder is open to all", "arguments", "with mode 0777")(
    lambda w: folder_is(w, lambda p: make_directory(p, 0o777, 0))
)


def folder_has(world: World, name: str, make: Callable[[Path], Any]) -> list[Step]:
    path = world.own / name
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    make(path)
    return [world.step(world.share / "volume")]


case("our trash is a link", "arguments", "is no plain directory")(
    lambda w: folder_has(w, "trash", lambda p: p.symlink_to(w.outside))
)
case("our intents are a link", "arguments", "is no plain directory")(
    lambda w: folder_has(w, "intents", lambda p: p.symlink_to(w.outside))
)
case("our lock is a link", "arguments", "lock")(
    lambda w: folder_has(w, "lock", lambda p: p.symlink_to(w.outside / "file"))
)
case("our owner file is a link", "arguments", "share.json")(
    lambda w: folder_has(w, "share.json", lambda p: p.symlink_to(w.outside / "file"))
)
case("our owner file is damaged", "arguments", "share.json is damaged")(
    lambda w: folder_has(w, "share.json", lambda p: p.write_text('{"kind": "Sha'))
)
case("our owner file is of a later release", "arguments", "has schema 2; expected 1")(
    lambda w: folder_has(w, "share.json", lambda p: p.write_text('{"kind": "Share", "schema": 2}'))
)


# --- quarantined: brought back or purged -------------------------------------------------------------------

for _state in ("restored", "purged"):
    for _entry, _words in (
        ("..", "is not the name"),
        (".", "is not the name"),
        ("a/b", "is not the name"),
        ("../../precious", "is not the name"),
        ("/etc", "is not the name"),
        ("x\0y", "is not the name"),
    ):
        case(f"{_state}: entry {_entry!r}", "failed", _words, _state)(
            lambda w, e=_entry: [{"id": "1", "share": str(w.share), "entry": e, "precondition": ANYWHERE}]
        )
    case(f"{_state}: no entry", "arguments", "entry is missing", _state)(
        lambda w: [{"id": "1", "share": str(w.share), "entry": "", "precondition": ANYWHERE}]
    )
case("restored: an entry that is not there", "gone", "", "restored")(
    lambda w: [{"id": "1", "share": str(w.share), "entry": "x", "precondition": ANYWHERE}]
)
case("purged: an entry that is not there", "unchanged", "", "purged")(
    lambda w: [{"id": "1", "share": str(w.share), "entry": "x", "precondition": ANYWHERE}]
)


def in_trash(state: str, name: str, expected: str, words: str = "") -> Callable[..., Any]:
    """A case that begins with the volume in quarantine, and does something to it there."""

    def add(change: Callable[[World, Path], Any]) -> Callable[..., Any]:
        def arrange(world: World) -> Any:
            step = world.quarantined(world.share / "volume")
            more = change(world, world.trash / step["entry"]) or {}
            return [{**step, **more.pop("step", {})}], more

        CASES.append(Case(f"{state}: {name}", arrange, expected, words, state))
        return change

    return add


def rewrite(entry: Path, **more: Any) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, **more}))


for _state in ("restored", "purged"):
    in_trash(_state, "its place is in no share", "refused", "was quarantined from the share")(
        lambda w, e: rewrite(e, share="elsewhere")
    )
    in_trash(_state, "another inode", "stale", "is not what was planned")(
        lambda w, e: {"step": {"precondition": {"device": e.stat().st_dev, "inode": 5}}}
    )
    in_trash(_state, "a manifest of a later release", "failed", "has schema 2")(lambda w, e: rewrite(e, schema=2))
    in_trash(_state, "a torn manifest", "failed", "is damaged")(
        lambda w, e: (e / "manifest.json").write_text('{"kin') and None
    )
    in_trash(_state, "no manifest", "failed", "has no manifest")(lambda w, e: (e / "manifest.json").unlink())
    in_trash(_state, "another file as manifest", "failed", "manifest.json is no Manifest")(
        lambda w, e: (e / "manifest.json").write_text("[]") and None
    )

    @in_trash(_state, "the entry is a link", "refused", "symbolic link")
    def _entry_link(world: World, entry: Path) -> None:
        entry.rename(entry.with_name("was"))
        entry.symlink_to(world.outside)

    @in_trash(_state, "the data is a link", "stale", "is not what was planned")
    def _data_link(world: World, entry: Path) -> None:
        (entry / "data").rename(entry / "was")
        (entry / "data").symlink_to(world.outside)

    @in_trash(_state, "the data is a link, and planned like that", "refused")
    def _data_link_planned(world: World, entry: Path) -> Any:
        (entry / "data").rename(entry / "was")
        (entry / "data").symlink_to(world.outside)
        found = (entry / "data").lstat()
        return {"step": {"precondition": {"device": found.st_dev, "inode": found.st_ino}}, "allow_purge_now": True}

    @in_trash(_state, "the data is another directory", "refused", "is not what its manifest says")
    def _data_other(world: World, entry: Path) -> Any:
        (entry / "data").rename(entry / "was")
        fill(entry / "data")
        found = (entry / "data").stat()
        return {"step": {"precondition": {"device": found.st_dev, "inode": found.st_ino}}, "allow_purge_now": True}


for _below, _words in (
    ("../precious", '".."'),
    ("volume/../../x", '".."'),
    ("/etc", "an empty part"),
    ("a//b", "an empty part"),
    (".clusterkit/x", "lies in .clusterkit"),
    ("x\0y", "zero byte"),
):
    in_trash("restored", f"to {_below!r}", "refused", _words)(lambda w, e, b=_below: rewrite(e, below=b))

in_trash("restored", "to the root of the share", "refused", "")(lambda w, e: rewrite(e, below=""))
in_trash("restored", "the place is taken", "refused", "is there already")(lambda w, e: fill(w.share / "volume"))
in_trash("restored", "the place is taken by a file", "refused", "is there already")(
    lambda w, e: (w.share / "volume").write_text("x") and None
)
in_trash("restored", "the place is taken by a link", "refused", "is there already")(
    lambda w, e: (w.share / "volume").symlink_to(w.outside)
)
in_trash("restored", "what it lay in is gone", "refused", "is not there any more")(lambda w, e: rewrite(e, below="a/b"))


@in_trash("restored", "what it lay in is a link", "refused", "symbolic link")
def _parent_link(world: World, entry: Path) -> None:
    rewrite(entry, below="link/b")
    (world.share / "link").symlink_to(world.outside)


in_trash("restored", "to another place with dots", "arguments", '".."')(
    lambda w, e: {"step": {"directory": f"{w.share}/../x"}}
)
in_trash("restored", "to another place outside", "arguments", "does not lie in")(
    lambda w, e: {"step": {"directory": f"{w.outside}/x"}}
)
in_trash("restored", "to another place, over a link", "refused", "symbolic link")(
    lambda w, e: ((w.share / "link").symlink_to(w.outside), {"step": {"directory": f"{w.share}/link/x"}})[1]
)


@in_trash("restored", "what it lay in is a mount point", "refused", "mount point")
def _parent_mount(world: World, entry: Path) -> None:
    rewrite(entry, below="above/b")
    (world.share / "above").mkdir()
    mount("--bind", world.share / "neighbour", world.share / "above")


@in_trash("purged", "links that lead out", "changed")
def _links_out(world: World, entry: Path) -> Any:
    data = entry / "data"
    targets = [*map(str, (world.outside, world.disk, world.share)), "/", "..", "../../..", ".", "nothing"]
    for number, target in enumerate(targets):
        (data / f"link{number}").symlink_to(target)
        (data / f"sub/link{number}").symlink_to(target)
    (data / "file-link").symlink_to(world.outside / "file")
    return {"allow_purge_now": True}


@in_trash("purged", "hard links", "changed")
def _hard_links(world: World, entry: Path) -> Any:
    os.link(world.share / "neighbour/file", entry / "data/hard")
    return {"allow_purge_now": True}


for _what in ("tmpfs", "bind"):

    @in_trash("purged", f"a mount in it ({_what})", "refused", "mount point")
    def _mount_in(world: World, entry: Path, what: str = _what) -> Any:
        point = entry / "data/sub"
        if what == "tmpfs":
            mount("-t", "tmpfs", "tmpfs", point)
            fill(point / "inner")
        else:
            mount("--bind", world.share / "neighbour", point)
        return {"allow_purge_now": True}


@in_trash("purged", "it is a mount point itself", "refused", "mount point")
def _mount_at(world: World, entry: Path) -> Any:
    mount("--bind", entry / "data", entry / "data")
    return {"allow_purge_now": True}


@in_trash("purged", "names that are odd", "changed")
def _odd_names(world: World, entry: Path) -> Any:
    for name in ("new\nline", "\udcff", "-rf", "*", "x" * 255, "..x", " "):
        (entry / "data" / name).mkdir()
        (entry / "data" / name / name).write_text("x")
    return {"allow_purge_now": True}


@in_trash("purged", "all kinds of files", "changed")
def _kinds(world: World, entry: Path) -> Any:
    data = entry / "data/sub"
    os.mkfifo(data / "pipe")
    os.mknod(data / "null", 0o20600, os.makedev(1, 3))
    (data / "closed").mkdir(0)
    (data / "closed/file").write_text("x")
    (data / "closed").chmod(0)
    return {"allow_purge_now": True}


@in_trash("purged", "the retention is not over", "refused", "the retention is")
def _early(world: World, entry: Path) -> None:
    pass


# --- the test ----------------------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    names = [one.name for one in CASES]
    assert len(set(names)) == len(names)
    assert len(names) >= 80


def own_files(world: World) -> list[Path]:
    """What a refused run writes, too."""
    return [world.disk / OWN / name for name in ("lease.json", "lock", "journal.jsonl")]


@pytest.mark.parametrize("one", CASES, ids=lambda one: ascii(one.name))
def test_nothing_outside_changes(world: World, way: str, one: Case) -> None:
    volume = world.volume()
    world.present()
    arranged = one.arrange(world)
    steps, more = arranged if isinstance(arranged, tuple) else (arranged, {})
    changes = one.expected == "changed"
    left_out = own_files(world)
    if changes:
        # The way to a directory that is deeper than a path may be long: the first part stands for it.
        directory = Path(steps[0].get("directory") or volume)
        top = world.share / directory.relative_to(world.share).parts[0]
        left_out += [top if len(str(directory)) > 4000 else directory, world.trash, world.own / "intents"]
    elif one.expected == "failed" and not any(world.trash.iterdir()):
        left_out.append(world.trash)  # an entry is made there, and removed again
    before = tree(world.folder, *left_out)
    if one.expected == "arguments":
        with pytest.raises(ValueError) as caught:
            world.run(one.state, *steps, **more)
        told = str(caught.value)
    else:
        predicted = world.run(one.state, *steps, check_mode=True, **more)
        assert tree(world.folder, *left_out) == before
        if one.expected != "failed":  # what only the attempt can show
            assert predicted.items[0]["state"] == one.expected
        outcome = world.run(one.state, *steps, **more)
        assert outcome.items[0]["state"] == one.expected, outcome.items
        assert outcome.changed == changes
        told = outcome.problem
    assert one.words in told, told
    assert tree(world.folder, *left_out) == before
    if changes:
        assert len(list(world.trash.glob("*/data"))) == (one.state == "quarantined")
