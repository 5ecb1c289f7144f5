# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that swaps directories for links at the worst moment, thousands of times a second."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _volume_dirs_quarantine
from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, content, fill, tree

EXCHANGE = 2  # RENAME_EXCHANGE
LIBC = ctypes.CDLL(None, use_errno=True)


def exchange(directory: int, one: str, other: str) -> None:
    LIBC.renameat2(directory, os.fsencode(one), directory, os.fsencode(other), EXCHANGE)


@contextlib.contextmanager
def racing(act: Callable[[int], None]) -> Iterator[None]:
    """Another process that acts all the time."""
    child = os.fork()
    if not child:
        for number in itertools.count():
            act(number)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_directory_itself(world: World, way: str, long: bool) -> None:
    """Whatever is hit: only the volume moves, and comes back whole."""
    world.present()
    volume = world.volume()
    inode, before = volume.stat().st_ino, content(volume)
    (world.share / "decoy").symlink_to(world.outside)
    directory = os.open(world.share, os.O_RDONLY)
    step = world.step(volume)
    around = tree(world.folder, volume, world.share / "decoy", world.disk / OWN)
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + (30 if long else 1.5)
    with racing(lambda _number: exchange(directory, "volume", "decoy")):
        # On a busy machine the other process may not have had its turn yet.
        while time.monotonic() < deadline or not (seen["changed"] and seen["refused"]):
            assert time.monotonic() < deadline + 120, seen
            (item,) = world.run("quarantined", step).items
            seen[item["state"]] += 1
            if item["state"] == "changed":
                data = world.trash / item["entry"] / "data"
                assert data.stat().st_ino == inode and content(data) == before
                # One of the two names is free now, so nothing is swapped until the directory is back.
                if volume.is_symlink():
                    volume.unlink()
                alone = not (world.share / "decoy").is_symlink()
                assert world.run("restored", world.entry()).problem == ""
                if alone:
                    (world.share / "decoy").symlink_to(world.outside)
            elif item["state"] == "stale":
                assert list(world.trash.iterdir()) == [], "what was caught instead is back in its place"
    (place,) = (path for path in world.share.iterdir() if path.lstat().st_ino == inode)
    assert content(place) == before
    assert tree(world.folder, volume, world.share / "decoy", world.disk / OWN) == around


def test_what_the_directory_lies_in(world: World, way: str, long: bool) -> None:
    """The parent of a nested volume becomes a link to the outside, where there is a directory of that name, too."""
    world.present()
    parent = world.share / "team"
    parent.mkdir()
    fill(parent / "sub")
    (world.share / "decoy").symlink_to(world.outside)
    directory = os.open(world.share, os.O_RDONLY)
    step = world.step(parent / "sub")
    inode, around = (parent / "sub").stat().st_ino, tree(world.outside)
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + (30 if long else 1)
    with racing(lambda _number: exchange(directory, "team", "decoy")):
        # On a busy machine the other process may not have had its turn yet.
        while time.monotonic() < deadline or not (seen["changed"] and seen["refused"]):
            assert time.monotonic() < deadline + 120, seen
            (item,) = world.run("quarantined", step).items
            seen[item["state"]] += 1
            assert tree(world.outside) == around
            if item["state"] == "changed":
                assert (world.trash / item["entry"] / "data").stat().st_ino == inode
                while world.run("restored", world.entry()).items[0]["state"] != "changed":
                    assert tree(world.outside) == around


def test_directories_below_one_that_is_purged(world: World, way: str, long: bool) -> None:
    """A client that had the directory open before still reaches it in quarantine."""
    world.present()
    rounds = 0
    deadline = time.monotonic() + (60 if long else 3)
    around = tree(world.folder, world.share / "volume", world.disk / OWN)
    while time.monotonic() < deadline:
        volume = world.volume()
        deep = volume
        for number in range(80):
            fill(volume / f"d{number}")
            (volume / f"link{number}").symlink_to((world.outside, world.share, "../../..", "/")[number % 4])
            deep /= "deep"
            deep.mkdir()
            (deep / "link").symlink_to(world.outside)
            (deep / "file").write_text("x")
        held = os.open(volume, os.O_RDONLY)
        step = world.quarantined(volume)

        def swap(number: int, held: int = held) -> None:
            which = random.randrange(80)  # noqa: S311 - not a secret
            exchange(held, f"d{which}", f"link{which}")
            exchange(held, "deep", f"link{which}")
            if number % 50 == 0:
                with contextlib.suppress(OSError):
                    os.mkdir(f"new{number}", dir_fd=held)

        with racing(swap):
            for _again in range(20):
                if world.run("purged", step, allow_purge_now=True).items[0]["state"] != "failed":
                    break
        os.close(held)
        assert world.run("purged", step, allow_purge_now=True).items[0]["state"] in ("changed", "unchanged")
        assert list(world.trash.iterdir()) == []
        rounds += 1
        assert tree(world.folder, world.share / "volume", world.disk / OWN) == around
    assert rounds


def test_files_that_are_written_all_the_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that never ends is reported, and what is there already is in quarantine."""
    world.present()
    volume = world.volume()
    step = world.of_volume(volume, scope="content", objects={"volume": {"metadata": {"uid": "0e2c-4711"}}})
    world.run("intended", step)
    names = itertools.count()
    rename = _volume_dirs_quarantine.rename_to_free_name

    def write_more(*arguments: Any) -> None:
        (volume / f"new{next(names)}").write_text("x")
        rename(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(_volume_dirs_quarantine, "rename_to_free_name", write_more)
        outcome = world.run("quarantined", step)
    assert outcome.items[0]["state"] == "failed" and "somebody keeps writing" in outcome.problem
    assert outcome.changed
    again = world.run("quarantined", step)
    assert again.problem == "" and list(volume.iterdir()) == []
    (entry,) = world.trash.iterdir()
    assert (entry / "data/sub/deeper/other").exists() and (entry / "data/new0").exists()
