# SPDX-License-Identifier: GPL-3.0-or-later
"""Wherever a run is ended, the last good generation can be restored, and the volume is as it was or as it should be."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _restore_place, _restore_stage

from .trees import difference, odd_tree, picture
from .world import World, forked, killed, names, seconds_of

LIMITS = {"holes": False, "sockets": False}


def fill(world: World, seed: int) -> None:
    odd_tree(world.volume, 300, seed)
    if world.engine == "restic":
        (world.volume / "odd/dangling").unlink()
    (world.volume / "large").write_bytes(random.Random(seed).randbytes(6 << 20))  # noqa: S311 - content


def change(world: World, number: int) -> None:
    """Some new files, some changed ones, some that only change their mode."""
    (world.volume / f"new{number}").write_bytes(os.urandom(3 << 20))
    (world.volume / "odd/empty").write_text(str(number))
    (world.volume / "large").chmod(0o600 if number % 2 else 0o644)


def test_backup_killed_at_random(world: World, kills: int, chance: random.Random) -> None:
    fill(world, 1)
    good = world.good()["generation"]
    before = picture(world.volume, **LIMITS)
    usual = seconds_of(lambda: world.good(check_mode=True)) * 1.5
    target = world.share / "restored"
    in_time = 0
    for number in range(kills):
        change(world, number)
        now = picture(world.volume, **LIMITS)
        in_time += killed(world.back_up, chance.uniform(0, usual))
        # Nothing happened to the volume, and what counts as the latest is whole: the one before, or this one.
        assert difference(now, picture(world.volume, **LIMITS)) == {}
        world.back({"server_dir": str(target), "generation": good})
        assert difference(before, picture(target, **LIMITS)) == {}
        shutil.rmtree(target)
        world.back({"server_dir": str(target)})
        latest = picture(target, **LIMITS)
        assert difference(latest, now) == {} or difference(latest, before) == {}
        shutil.rmtree(target)
        shutil.rmtree(world.folder / ".clusterkit/trash")
        # The next run goes on.
        good, before = world.good()["generation"], now
        if world.engine == "rsync":
            left = names(world.backup / "repository/web/pv-1")
            assert [name for name in left if name[0] == "."] == [".lock"]
    assert in_time, "no run was killed in time"


def test_restore_killed_at_random(world: World, kills: int, chance: random.Random) -> None:
    fill(world, 1)
    wanted = picture(world.volume, **LIMITS)
    world.good()
    usual = seconds_of(lambda: world.back({"server_dir": str(world.share / "first")}))
    in_time = 0
    for number in range(kills):
        shutil.rmtree(world.volume)
        world.volume.mkdir()
        odd_tree(world.volume, 20, number)
        (world.volume / "precious").write_text(f"{number}")
        old = picture(world.volume, **LIMITS)
        in_time += killed(world.restore, chance.uniform(0, usual))
        now = picture(world.volume, **LIMITS)
        assert difference(now, old) == {} or difference(now, wanted) == {}
        if difference(now, wanted) == {}:
            continue
        world.back()
        assert difference(wanted, picture(world.volume, **LIMITS)) == {}
        assert names(world.folder / ".clusterkit/restore") == []
        kept = list((world.folder / ".clusterkit/trash").glob("*/data/precious"))
        assert f"{number}" in {path.read_text() for path in kept}
    assert in_time, "no run was killed in time"


def counted(work: Callable[[], Any], end: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Do some work, and die at the entry of the call with that number of all that place something."""
    calls = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == end:
                os._exit(99)
            return real(*arguments, **more)

        return call

    def run() -> Any:
        for name in ("exchange", "rename_to_free_name", "write_new", "sync", "_copy_attributes"):
            monkeypatch.setattr(_restore_place, name, dying(getattr(_restore_place, name)))
        monkeypatch.setattr(_restore_stage, "write_json", dying(_restore_stage.write_json))
        for name in ("mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(_restore_place.os, name, dying(getattr(os, name)))
        return work()

    return run


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "no-exchange"])
@pytest.mark.parametrize("scope", ["directory", "content", "paths"])
def test_placing_killed_at_every_step(
    rsync_world: World, scope: str, exchange: bool, kills: int, monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    world = rsync_world
    stride = 1 if kills > 6 else 6
    for name in ("a", "b", "sub/c"):
        (world.volume / name).parent.mkdir(exist_ok=True)
        (world.volume / name).write_text(f"good {name}")
    world.good()
    wanted = picture(world.volume, times=False)
    if scope == "content":
        world.exports(world.share, world.volume)
    if not exchange:
        monkeypatch.setattr(_restore_place, "exchange", lambda *_arguments: False)
    item = {"paths": ["a", "sub/c"]} if scope == "paths" else {}
    ends = 0
    for end in range(chance.randrange(1, stride + 1), 200, stride):
        shutil.rmtree(world.volume / "sub")
        (world.volume / "sub").mkdir()
        for name in ("a", "sub/c", "extra"):
            (world.volume / name).write_text(f"bad {end}")
        (world.volume / "b").unlink(missing_ok=True)
        (world.volume / "b").write_text("good b" if scope == "paths" else f"bad {end}")
        with monkeypatch.context() as patched:
            status = os.waitstatus_to_exitcode(
                os.waitpid(forked(counted(lambda: world.restore(item), end, patched)), 0)[1]
            )
        assert status in (0, 99)
        # Every file is there with its old or its new content, as long as the kernel can exchange.
        if exchange:
            for name in ("a", "b", "sub/c"):
                assert (world.volume / name).read_text() in (f"good {name}", f"bad {end}"), end
        if status == 0:
            break
        ends += 1
        # The next run, of another volume on the same file system, brings it to an end.
        world.back({"server_dir": str(world.share / "other")})
        texts = {name: (world.volume / name).read_text() for name in ("a", "b", "sub/c")}
        assert len({text.split()[0] for name, text in texts.items() if name != "b"}) == 1, (end, texts)
        if texts["a"] == "good a":
            quarantined = [path.read_text() for path in (world.folder / ".clusterkit/trash").glob("*/data/a")]
            assert f"bad {end}" in quarantined, end
        world.back(item)
        now = picture(world.volume, times=False)
        extra = now.pop(b"extra", None)
        assert difference(wanted, now) == {} and (extra is None) == (scope != "paths"), end
    else:
        raise AssertionError("it never came to its end")
    assert ends > 10 / stride


def test_copied_files_of_a_killed_run_are_not_copied_again(rsync_world: World) -> None:
    world = rsync_world
    for number in range(20):
        (world.volume / f"f{number:02}").write_bytes(os.urandom(1 << 20))
    folder = world.backup / "repository/web/pv-1"

    def copied() -> int:
        # rsync gives a file its name when it is complete.
        return len(list((folder / ".partial/data").glob("f*")))

    child = forked(lambda: world.back_up(bandwidth=8192))
    deadline = time.monotonic() + 60
    while copied() < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert names(folder) == [".lock", ".partial"]
    assert 2 <= copied() < 20
    with (folder / ".lock").open() as lock:  # its rsync outlives it for a while, and holds the lock
        fcntl.flock(lock, fcntl.LOCK_EX)
    done = copied()
    # What only changes its mode must not change the copy that is there already, nor be copied.
    (world.volume / "f00").chmod(0o600)
    result = world.good()
    assert 20 - done <= result["changed_files"] <= 20 - done + 1
    assert not world.verify().problems
    assert (Path(result["path"]) / "data/f00").stat().st_mode & 0o777 == 0o600
    assert names(folder) == [".lock", result["generation"], "latest"]
