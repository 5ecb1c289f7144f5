# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile cases: what is quarantined, and is brought back or purged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.tests.server_disk import World, fill, mount

from .hostile import ANYWHERE, CASES, Case, case

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
