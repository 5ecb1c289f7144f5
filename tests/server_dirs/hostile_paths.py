# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile cases: what a step names, its spelling, links on the way, and what is no directory or another one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.tests.server_disk import World, fill

from .hostile import ANYWHERE, Step, case, literal

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


def through(world: World, alias: Path, target: str, share: Path) -> Any:
    """The volume in a share that is named by way of a link."""
    alias.symlink_to(target)
    step = world.step(world.share / "volume")
    return [{**step, "share": str(share), "directory": str(share / "volume")}], {"shares": [str(share)]}


case("the share is a link", "arguments", "is a symbolic link; name the directory itself")(
    lambda w: through(w, w.disk / "alias", "k8s", w.disk / "alias")
)
case("a link above the share", "arguments", "is a symbolic link; name the directory itself")(
    lambda w: through(w, w.folder / "alias", "disk", w.folder / "alias/k8s")
)


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
