# SPDX-License-Identifier: GPL-3.0-or-later
"""100,000 small files in one call of the module's code, beside plain rsync and plain restic.

    python -m benchmarks.backup

As root, on a tmpfs, which needs about 3 GiB: the disk is not what is measured. First and unchanged, each kind in
turn, in processes of their own; medians of 3. For generations that share files a user would run `rsync -a --link-dest`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
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


def one_round(place: Path, volume: Path) -> dict[str, float]:
    ours, plain, linked, repository, other = (place / n for n in ("ours", "plain", "linked", "restic", "restic-ours"))
    for each in (ours, plain, linked, repository, other):
        shutil.rmtree(each, ignore_errors=True)
    linked.mkdir()
    for each in (repository, other):
        command("restic", "-q", "-r", each, "init")()
    found = {
        "rsync first": seconds_of(command("rsync", "-a", "./", f"{plain}/", cwd=volume)),
        "rsync first, module": seconds_of(module(volume, ours, "rsync")),
        "rsync unchanged": seconds_of(command("rsync", "-a", f"--link-dest={plain}", "./", f"{linked}/", cwd=volume)),
        "rsync unchanged, module": seconds_of(module(volume, ours, "rsync")),
        "rsync -a onto itself": seconds_of(command("rsync", "-a", "./", f"{plain}/", cwd=volume)),
    }
    for each in (ours, plain, linked):
        shutil.rmtree(each)
    plain_restic = command("restic", "-q", "-r", repository, "backup", ".", cwd=volume)
    for when in ("first", "unchanged"):
        found[f"restic {when}"] = seconds_of(plain_restic)
        found[f"restic {when}, module"] = seconds_of(module(volume, other, "restic"))
    return found


def main() -> None:
    os.unshare(os.CLONE_NEWNS)
    mount("--make-rprivate", "/")
    place = ROOT / ".work/benchmark-backup"
    place.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=6g", "tmpfs", place)
    os.environ["RESTIC_CACHE_DIR"] = str(place / "cache")
    volume = place / "volume"
    for folder in range(100):
        (volume / f"d{folder}").mkdir(parents=True)
        for number in range(FILES // 100):
            (volume / f"d{folder}/f{number}").write_bytes(os.urandom(SIZE))
    began = time.monotonic()
    rounds = [one_round(place, volume) for _ in range(RUNS)]
    print(f"{FILES} files of {SIZE} bytes, medians of {RUNS} rounds, seconds ({time.monotonic() - began:.0f} s in all)")
    for name in rounds[0]:
        if name.endswith(", module") or f"{name}, module" not in rounds[0]:
            continue
        plain = statistics.median(one[name] for one in rounds)
        ours = statistics.median(one[f"{name}, module"] for one in rounds)
        ratios = ", ".join(f"{one[f'{name}, module'] / one[name]:.2f}" for one in rounds)
        print(f"  {name:16} plain {plain:6.2f}  module {ours:6.2f}  ratio {ours / plain:.2f} (each round: {ratios})")
    itself = statistics.median(one["rsync -a onto itself"] for one in rounds)
    print(f"  rsync -a onto an existing copy, without generations: {itself:.2f}")


if __name__ == "__main__":
    main()
