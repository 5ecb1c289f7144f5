# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile cases: mounts, other volumes, rights, and what lies in place of our own folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, fill, mount, objects

from .hostile import ANYWHERE, Step, case

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
