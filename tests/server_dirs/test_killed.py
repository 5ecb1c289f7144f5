# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any system call that changes something loses nothing, and the next run finishes.

strace(1) ends the process at the entry of one system call. 40 points, in the long tier 500.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.tests import tracing
from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, content, fill, objects, tree

# All that may change a file system; openat does when it creates.
CALLS = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlinkat,write,pwrite64,fsync"
CALLS += ",syncfs,ftruncate,fchmod,fchown,ioctl,openat"
MANIFESTS = ("manifest.json", "restoring.json", "purging.json")


@dataclass
class Scene:
    """Volumes of every sort, and one run that is going to be killed."""

    world: World
    state: str
    files: int
    places: dict[str, Path] = field(default_factory=dict)  # where each lies, by uid; "" for the orphan
    before: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    around: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        world = self.world
        world.present()
        for uid in ("1-a", "2-b", "3-c", ""):
            place = world.volume(f"volume{uid}")
            for number in range(self.files):
                (place / f"f{number}").write_text(str(number))
            self.places[uid], self.before[uid] = place, content(place)
        self.around = self.look_around()
        steps = [
            world.of_volume(place, uid=uid, scope=self.scope(uid), objects=objects(uid)) if uid else world.step(place)
            for uid, place in self.places.items()
        ]
        if self.state == "intended":
            self.steps = steps[:3]
            return
        world.run("intended", *steps[:3])
        self.steps = steps
        if self.state != "quarantined":
            assert world.run("quarantined", *steps).problem == ""
            self.steps = [world.entry(number) for number in range(4)]
            if self.state == "restored":
                for step, found in zip(self.steps, world.info()["quarantined"], strict=True):
                    step["directory"] = found["directory"]
            if self.state == "purged":
                world.clock = world.places.now() + 20 * 86400

    @staticmethod
    def scope(uid: str) -> str:
        return "content" if uid == "3-c" else "directory"

    def look_around(self) -> dict[str, Any]:
        return tree(self.world.folder, *self.places.values(), self.world.disk / OWN)

    def do(self) -> Any:
        return self.world.run(self.state, *self.steps, **self.more)

    def check_nothing_is_lost(self) -> None:
        """Data is in the volume, in quarantine beside a manifest, or being purged by its age."""
        entries = {
            _uid(path): path for path in self.world.trash.iterdir() if any((path / m).exists() for m in MANIFESTS)
        }
        for uid, place in self.places.items():
            inside = entries[uid] / "data" if uid in entries else None
            if self.state == "purged":
                assert not place.exists() or self.scope(uid) == "content"
                if inside is not None and (entries[uid] / "manifest.json").exists():
                    assert content(inside)["/file"] == self.before[uid]["/file"]
                continue
            found = content(place) if place.exists() else {}
            moved = content(inside) if inside is not None and inside.exists() else {}
            if self.scope(uid) == "directory":
                assert (found or moved) == self.before[uid] and not (found and moved), uid
            else:
                together = {**moved, **found}
                assert {key: value for key, value in together.items() if key} == {
                    key: value for key, value in self.before[uid].items() if key
                }, uid
            if uid and self.state != "intended":
                assert self.rebuildable(uid, entries.get(uid)), f"the objects of {uid} cannot be made again"
        assert self.look_around() == self.around

    def rebuildable(self, uid: str, entry: Path | None) -> bool:
        texts = [path.read_text() for path in (self.world.own / "intents").glob(f"*{uid}.json")]
        if entry is not None:
            texts += [(entry / name).read_text() for name in MANIFESTS if (entry / name).exists()]
        return any('"namespace": "shop"' in text and f'"uid": "{uid}"' in text for text in texts)

    def check_it_is_done(self) -> None:
        world = self.world
        intents = sorted(path.name for path in (world.own / "intents").iterdir())
        left = list(world.trash.iterdir())
        if self.state == "intended":
            assert intents == [f"pvc-{uid}-{uid}.json" for uid in ("1-a", "2-b", "3-c")] and left == []
        elif self.state == "quarantined":
            assert intents == [] and len(left) == 4
            for path in left:
                assert sorted(each.name for each in path.iterdir()) == ["data", "manifest.json"]
            for place in self.places.values():
                assert not place.exists() or list(place.iterdir()) == []
        elif self.state == "restored":
            assert left == [] and intents == [f"restored-pvc-{uid}-{uid}.json" for uid in ("1-a", "2-b", "3-c")]
            for uid, place in self.places.items():
                found = content(place)
                assert {k: v for k, v in found.items() if k} == {k: v for k, v in self.before[uid].items() if k}
        else:
            assert left == [] and intents == []
        files = {"share.json", "lock", "journal.jsonl", "intents", "trash"}
        assert {path.name for path in world.own.iterdir()} - {"lease.json"} == files
        assert self.look_around() == self.around


def _uid(entry: Path) -> str:
    return "" if "inode" in entry.name else re.sub(r".*pvc-([0-9]-[a-z])-.*", r"\1", entry.name)


def run_traced(scene: Scene, log: Path, *inject: str) -> int:
    """Do the run below strace; return the status that waitpid gives: of 1 if it met a problem."""

    def work() -> int:
        try:
            return int(bool(scene.do().problem))
        except ValueError:
            return 1

    return tracing.run_traced(work, log, *inject, calls=CALLS)


def points(log: Path) -> list[tuple[str, int]]:
    """Every call that changes something, with its number among the calls of that name."""
    found, counted = [], dict.fromkeys(CALLS.split(","), 0)
    for name, rest in re.findall(r"^(\w+)\((.*)", log.read_text(), re.MULTILINE):
        counted[name] += 1
        if (name == "openat" and "O_CREAT" not in rest) or (name == "ioctl" and "SETXATTR" not in rest):
            continue
        found.append((name, counted[name]))
    return found


def spread(found: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    if len(found) <= count:
        return list(found)
    return [found[round(number * (len(found) - 1) / (count - 1))] for number in range(count)]


# How many points, in CI and in the long tier.
PLAN = {"intended": (4, 50), "quarantined": (14, 150), "restored": (12, 150), "purged": (10, 150)}


@pytest.mark.parametrize("state", PLAN)
def test_killed_at_every_step(tmp_path: Path, state: str, long: bool) -> None:
    files = {"purged": 30, "intended": 0}.get(state, 8) if long else 2
    log = tmp_path / "trace"
    scenes = 0

    def scene() -> Scene:
        nonlocal scenes
        scenes += 1
        folder = tmp_path / f"scene{scenes}"
        folder.mkdir()
        made = Scene(World(folder), state, files)
        made.prepare()
        return made

    whole = scene()
    assert run_traced(whole, log) == 0
    whole.check_it_is_done()
    found = points(log)
    names = [name for name, _number in found]
    assert "fsync" in names and ("renameat2" in names or "renameat" in names), names
    chosen = spread(found, PLAN[state][long])
    unfinished = 0
    for name, number in chosen:
        where = f"killed at {name} number {number}"
        one = scene()
        status = run_traced(one, log, *tracing.kill_at(name, number))
        assert tracing.was_killed(status), where
        try:
            one.check_nothing_is_lost()
            one.world.info()  # can be looked at meanwhile
            outcome = one.do()
            unfinished += bool(outcome.changed)
            assert outcome.problem == "", outcome.problem
            one.check_it_is_done()
        except AssertionError as error:
            raise AssertionError(f"{where} of {state}: {error}") from error
        finally:
            subprocess.run(["umount", one.world.disk], check=True)
            shutil.rmtree(one.world.folder)
    assert unfinished > len(chosen) / 2, "the kills hit nothing"


def test_another_run_after_a_kill(tmp_path: Path) -> None:
    """The next run wants something else: what was half done is finished or undone all the same."""
    log = tmp_path / "trace"
    first = Scene(World(_folder(tmp_path, "first")), "quarantined", 1)
    first.prepare()
    assert run_traced(first, log) == 0
    for number in range(1, sum(name == "renameat2" for name, _number in points(log)) + 1):
        one = Scene(World(_folder(tmp_path, f"scene{number}")), "quarantined", 1)
        one.prepare()
        run_traced(one, log, *tracing.kill_at("renameat2", number))
        entries = one.world.info()["quarantined"]
        one.world.run("closed", *[step for step in one.steps if step.get("volume")])
        for entry in entries:
            if entry["inode"]:
                precondition = {"device": entry["device"], "inode": entry["inode"]}
                step = {"id": "x", "share": entry["share"], "entry": entry["entry"], "precondition": precondition}
                outcome = one.world.run("restored", step)
                assert outcome.problem == "" or outcome.items[0]["state"] == "gone", outcome.problem
        for uid, place in one.places.items():
            assert {k: v for k, v in content(place).items() if k} == {k: v for k, v in one.before[uid].items() if k}
        assert list(one.world.trash.iterdir()) == []


def _folder(above: Path, name: str) -> Path:
    (above / name).mkdir()
    return above / name


def test_a_journal_that_was_torn(world: World) -> None:
    world.present()
    fill(world.share / "a")
    (world.own / "journal.jsonl").write_text('{"time": "20')
    world.run("quarantined", world.step(world.share / "a"))
    torn, line = (world.own / "journal.jsonl").read_text().splitlines()
    assert torn == '{"time": "20' and '"result": "changed"' in line
