# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of volumes by the thousand: volume_dirs and volume_dirs_info beside what a user would run instead.

    python -m benchmarks.dirs [FOLDER [DIRECTORIES [QUARANTINED [FILES]]]]

As root, in FOLDER (/var/tmp), whose disk must have room for 2 million inodes with the defaults. Modules run in
processes of their own, as on a managed host, start of Python included; the planning is measured without it, too. Times
are wall times of this machine, medians of three: only their ratios mean something.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _plan
from ansible_collections.clusterkit.storage.tests import shares

ROOT = Path(__file__).resolve().parents[1]

CLUSTER = "6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"
ROUNDS = 3
FIELDS = "%f %D %i %U %G %u %g %m %T@ %C@ %B@\\n"
RUN = """
import sys; sys.path.insert(0, sys.argv[1])
from tests.import_name import register; register()
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = open(sys.argv[3], "rb").read()
basic._ANSIBLE_PROFILE = "legacy"
import atexit, importlib, time
def told():
    seconds = time.perf_counter() - began
    with open("/proc/self/status") as status, open(sys.argv[3] + ".told", "w") as out:
        out.write(next(line for line in status if line.startswith("VmHWM")).split()[1] + f" {seconds}")
module = importlib.import_module("ansible_collections.clusterkit.storage.plugins.modules." + sys.argv[2])
began = time.perf_counter()
atexit.register(told)
module.main()
"""
LOADS = """
import json, sys, time
began = time.perf_counter()
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as stream:
        for line in stream:
            json.loads(line)
print(time.perf_counter() - began)
"""


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    os.sync()
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.peaks: dict[str, int] = {}
        self.inside = 0.0
        self.share.mkdir()
        # There already, so that it is made nowhere else, whatever this machine exports.
        (self.share / ".clusterkit").mkdir(0o700)
        self.module("volume_dirs", state="present", clusters=[CLUSTER])

    def module(self, name: str, **arguments: Any) -> dict[str, Any]:
        given = self.folder / "arguments.json"
        common = {"shares": [str(self.share)]} if name.startswith("volume_dirs") else {}
        given.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**common, **arguments}}))
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(ROOT), name, str(given)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        result: dict[str, Any] = json.loads(done.stdout)
        peak, seconds = Path(f"{given}.told").read_text().split()
        self.peaks[name] = max(self.peaks.get(name, 0), int(peak))
        self.inside = float(seconds)  # without the start of Python and the loading of code
        return result

    # 1. ----------------------------------------------------------------------------------------------------

    def listing(self, count: int) -> None:
        for number in range(count):
            (self.share / f"shop-data-{number}-pvc-6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11").mkdir()
        argv = ["find", str(self.share), "-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", FIELDS]
        found, ours = [], []
        for _round in range(ROUNDS):
            with (self.folder / "find.txt").open("w") as stream:
                found.append(timed(lambda out=stream: subprocess.run(argv, stdout=out, check=True))[0])
            seconds, result = timed(lambda: self.module("volume_dirs_info", dest=str(self.folder / "listing.jsonl")))
            ours.append(seconds)
            assert result["counts"]["directories"] == count
        report(f"list {count:,} directories", "find -maxdepth 1 -printf", found, "volume_dirs_info", ours, 3)
        for path in self.share.glob("shop-*"):
            path.rmdir()

    # 2. ----------------------------------------------------------------------------------------------------

    def quarantine(self, count: int) -> None:
        plain, ours = [], []
        for number in range(ROUNDS):
            names = [f"volume-{number}-{index}" for index in range(count)]
            for name in names:
                (self.share / name).mkdir()
            steps = [self.step(name) for name in names]
            plan = self.write_plan("quarantined", steps)
            common = {"plan": plan, "allow_unknown_open_state": True}
            ours.append(timed(lambda given=common: self.module("volume_dirs", state="quarantined", **given))[0])
            entries = list((self.share / ".clusterkit/trash").iterdir())
            assert len(entries) == count
            manifest = (entries[0] / "manifest.json").read_bytes()
            for entry in entries:
                shutil.rmtree(entry)
            for name in names:
                (self.share / name).mkdir()
            plain.append(timed(lambda n=names, m=manifest: self.plain_renames(n, m))[0])
            shutil.rmtree(self.folder / "plain")
        name = "os.rename and the manifests' fsyncs"
        report(f"quarantine {count:,} directories", name, plain, "volume_dirs quarantined", ours, 1.5)

    def step(self, name: str) -> dict[str, Any]:
        found = (self.share / name).stat()
        return {
            "id": name,
            "module": "volume_dirs",
            "state": "quarantined",
            "share": str(self.share),
            "directory": str(self.share / name),
            "precondition": {"device": found.st_dev, "inode": found.st_ino},
            "reason": "released for more than 7 days",
        }

    def write_plan(self, action: str, steps: list[dict[str, Any]]) -> str:
        made = {"schema": 1, "action": action, "cluster_uid": CLUSTER, "steps": steps}
        path = self.folder / "plan.json"
        path.write_text(json.dumps({"id": _plan.hash_of(made), **made}))
        return str(path)

    def plain_renames(self, names: list[str], manifest: bytes) -> None:
        target = self.folder / "plain"
        target.mkdir()
        for name in names:
            os.rename(self.share / name, target / name)  # noqa: PTH104 - what is compared
            descriptor = os.open(target / f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, manifest)
            os.fsync(descriptor)
            os.close(descriptor)

    # 3. ----------------------------------------------------------------------------------------------------

    def purge(self, count: int) -> None:
        plain, ours = [], []
        for number in range(ROUNDS):
            for turn in (0, 1) if number % 2 else (1, 0):
                name = f"volume-{number}-{turn}"
                fill(self.share / name, count)
                if turn:
                    argv = ["rm", "-rf", str(self.share / name)]
                    plain.append(timed(lambda command=argv: subprocess.run(command, check=True))[0])
                    continue
                steps, more = [self.step(name)], {"cluster_uid": CLUSTER, "allow_unknown_open_state": True}
                for key in ("module", "state"):
                    del steps[0][key]
                (done,) = self.module("volume_dirs", state="quarantined", steps=steps, **more)["directories"]
                entry = {"share": str(self.share), "entry": done["entry"], "precondition": steps[0]["precondition"]}
                given = {"steps": [entry], "allow_purge_now": True, **more}
                ours.append(timed(lambda arguments=given: self.module("volume_dirs", state="purged", **arguments))[0])
            assert list((self.share / ".clusterkit/trash").iterdir()) == []
        report(f"remove {count:,} files", "rm -rf", plain, "volume_dirs purged", ours, 1.1)

    # 4. ----------------------------------------------------------------------------------------------------

    def planning(self, count: int) -> None:
        """So many volumes, of which one in a thousand is released for ten days, and so many directories."""
        names = [f"shop-data-{number}-pvc-{number:032x}" for number in range(count)]
        volumes = [
            shares.dynamic(f"pvc-{number:032x}", name, **({"phase": "Bound"} if number % 1000 else {}))
            for number, name in enumerate(names)
        ]
        claims = {("shop", f"claim-{one.name}"): f"claim-uid-{one.name}" for one in volumes if one.phase == "Bound"}
        listing, found = self.folder / "volumes.jsonl", self.folder / "directories.jsonl"
        listing.write_text("".join(f"{line}\n" for line in _listing.lines(shares.listing(*volumes, claims=claims))))
        empty = shares.directories()
        header = {"kind": "DirectorySet", "schema": 1, "listed_at": empty.listed_at, "complete": True, "problems": []}
        header |= {"shares": empty.shares, "parents": [], "records": count}
        records = (json.dumps(one, sort_keys=True) for one in (header, *map(shares.directory, names)))
        found.write_text("".join(f"{line}\n" for line in records))
        argv = [sys.executable, "-c", LOADS, str(listing), str(found)]
        directories = [{"host": shares.HOST, "path": str(found)}]
        cleanup = {"storage_servers": shares.SERVERS, "directories": directories}
        given = {"listing": str(listing), "cleanup": cleanup, "dest": str(self.folder / "cleanup.json")}
        plain, ours, plain_inside, ours_inside = [], [], [], []
        for _ in range(ROUNDS):
            seconds, done = timed(lambda: subprocess.run(argv, check=True, capture_output=True, text=True))
            plain.append(seconds)
            plain_inside.append(float(done.stdout))
            ours.append(timed(lambda: self.module("storage_plan", action="cleanup", **given))[0])
            ours_inside.append(self.inside)
        what = f"plan the clean-up of {count:,} volumes and as many directories"
        report(what, "json.loads of both files", plain_inside, "storage_plan", ours_inside, 2)
        report(f"{what}, start of Python included", "json.loads of both files", plain, "storage_plan", ours, 2)


def fill(place: Path, count: int) -> None:
    """A tree of 1,000 files a directory."""
    place.mkdir()
    for number in range(0, count, 1000):
        folder = place / f"d{number // 20000}/e{number}"
        folder.mkdir(parents=True)
        directory = os.open(folder, os.O_RDONLY)
        for index in range(min(1000, count - number)):
            os.close(os.open(f"file-{index}.dat", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        os.close(directory)


def report(what: str, other: str, theirs: list[float], name: str, ours: list[float], limit: float) -> None:
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"{what}:")
    for label, times in ((other, theirs), (name, ours)):
        shown = " ".join(f"{seconds:.2f}" for seconds in times)
        print(f"  {label:38} {statistics.median(times):8.2f} s  ({shown})")
    print(f"  ratio {ratio:.2f}, aim: at most {limit:g}", flush=True)


def main() -> None:
    arguments = sys.argv[1:]
    counts = [int(text) for text in arguments[1:]]
    directories, quarantined, files = counts + [100_000, 10_000, 1_000_000][len(counts) :]
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else "/var/tmp") as name:  # noqa: S108 - a disk
        bench = Bench(Path(name))
        bench.listing(directories)
        bench.quarantine(quarantined)
        bench.planning(directories)
        bench.purge(files)
        for module, peak in bench.peaks.items():
            print(f"peak memory of {module}: {peak // 1024} MB")


if __name__ == "__main__":
    main()
