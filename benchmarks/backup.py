# SPDX-License-Identifier: GPL-3.0-or-later
"""100,000 small files in one call of the module's code, beside plain rsync and plain restic.

    python -m benchmarks.backup

As root; needs about 3 GiB in `.work`, and of memory. First and unchanged, each kind in turn, in processes of their own;
medians of 3. Once on the disk with cold caches, as a backup at night finds them, where plain rsync is followed by
`sync -f`, since the module does not report a generation that a power cut would take; once on a tmpfs, where nothing but
the work of the processors is measured. For generations that share files a user would run `rsync -a --link-dest`; with
`-AXH` beside it is what keeps ACLs, extended attributes and hard links, as the module does. All write as deep a path,
`<backup>/<namespace>/<volume>/<time>`, since rsync 3.5 opens each part of it anew for each file that it links.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_run
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings

from tests.backup.world import mount, seconds_of

ROOT = Path(__file__).resolve().parents[1]

FILES, SIZE, RUNS = int(os.environ.get("FILES", "100000")), 2000, 3
PASSWORD = "benchmark"  # noqa: S105 - of a repository that lives for a minute


def module(volume: Path, repository: Path, engine: str) -> Callable[[], Any]:
    volumes, problems = _backup.read_volumes([{"name": "pv-1", "namespace": "web", "server_dir": str(volume)}])
    assert not problems
    settings = Settings(str(repository), engine, password=PASSWORD if engine == "restic" else None)
    create = engine == "rsync"
    return lambda: _backup_run.back_up(volumes, settings, create=create, retention=None, check_mode=False)


def command(*argv: str | Path, cwd: Path | None = None) -> Callable[[], Any]:
    def run() -> None:
        environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD}
        subprocess.run([str(word) for word in argv], check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)

    return run


def cold() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def measured(work: Callable[[], Any]) -> float:
    cold()
    return seconds_of(work)


def one_round(place: Path, volume: Path, *, disk: bool) -> dict[str, float]:
    ours, repository, other = (place / name for name in ("ours", "restic", "restic-ours"))
    plain, linked = (place / f"plain/web/pv-1/2026-01-0{day}T00:00:00Z/data" for day in (1, 2))
    found = {}

    def rsync(*options: str | Path, target: Path) -> Callable[[], Any]:
        copy = command("rsync", *options, "./", f"{target}/", cwd=volume)
        flush = command("sync", "-f", target)
        return lambda: (copy(), flush() if disk else None)

    for each in (ours, plain, linked, repository, other):
        shutil.rmtree(each, ignore_errors=True)
    for options in ("-a", "-aHAX"):
        for each in (plain, linked):
            shutil.rmtree(each, ignore_errors=True)
        for each in (plain, linked):
            each.mkdir(parents=True)
        found[f"rsync {options} first"] = measured(rsync(options, target=plain))
        found[f"rsync {options} unchanged"] = measured(rsync(options, f"--link-dest={plain}", target=linked))
    found["rsync first"] = measured(module(volume, ours, "rsync"))
    found["rsync unchanged"] = measured(module(volume, ours, "rsync"))
    for each in (ours, plain, linked):
        shutil.rmtree(each)
    for each in (repository, other):
        command("restic", "-q", "-r", each, "init")()
    for when in ("first", "unchanged"):
        found[f"restic backup {when}"] = measured(command("restic", "-q", "-r", repository, "backup", ".", cwd=volume))
        found[f"restic {when}"] = measured(module(volume, other, "restic"))
    return found


def compare(place: Path, *, disk: bool) -> None:
    os.environ["RESTIC_CACHE_DIR"] = str(place / "cache")
    volume = place / "volume"
    for folder in range(100):
        (volume / f"d{folder}").mkdir(parents=True)
        for number in range(FILES // 100):
            (volume / f"d{folder}/f{number}").write_bytes(os.urandom(SIZE))
    began = time.monotonic()
    rounds = [one_round(place, volume, disk=disk) for _ in range(RUNS)]
    print(f"{FILES} files of {SIZE} bytes, medians of {RUNS} rounds, seconds ({time.monotonic() - began:.0f} s in all)")
    for engine, plain in (("rsync", "rsync -a"), ("rsync", "rsync -aHAX"), ("restic", "restic backup")):
        for when in ("first", "unchanged"):
            theirs, ours = ([one[f"{name} {when}"] for one in rounds] for name in (plain, engine))
            ratios = ", ".join(f"{one / other:.2f}" for one, other in zip(ours, theirs, strict=True))
            middle = statistics.median(ours), statistics.median(theirs)
            print(
                f"  {plain:14}{when:10} {middle[1]:6.2f}  module {middle[0]:6.2f}  "
                f"ratio {middle[0] / middle[1]:.2f} (each round: {ratios})",
                flush=True,
            )


def main() -> None:
    os.unshare(os.CLONE_NEWNS)
    mount("--make-rprivate", "/")
    for disk in (True, False):
        print("on the disk, caches cold:" if disk else "on a tmpfs:", flush=True)
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=ROOT / ".work") as place:
            if not disk:
                mount("-t", "tmpfs", "-o", "size=6g", "tmpfs", place)
            compare(Path(place), disk=disk)
            if not disk:
                subprocess.run(["umount", place], check=True)


if __name__ == "__main__":
    main()
