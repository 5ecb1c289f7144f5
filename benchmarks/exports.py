# SPDX-License-Identifier: GPL-3.0-or-later
"""1,000 exports in one call of the module's code, beside `exportfs -ra` alone: python benchmarks/exports.py

On this computer, with the exportfs of Debian in a chroot; inside the module, imports not counted; medians of 5.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.exportfs.chroot import FILE, Server, _run

from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import (  # isort: skip
    Places,
    Request,
    ensure_exports,
)
from lab.server_tree import server_tree
from lab.settings import pins

COUNT, RUNS = 1000, 5


def exports(options: str) -> list[dict[str, Any]]:
    return [
        {
            "path": f"/srv/e{number}",
            "clients": [{"host": f"10.{number // 250}.{number % 250}.0/24", "options": [options]}],
        }
        for number in range(COUNT)
    ]


def median(work: Callable[[int], Any]) -> float:
    seconds = []
    for number in range(RUNS):
        began = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure() -> dict[str, float]:
    """Runs in the chroot."""

    def ensure(options: str, *, changed: bool) -> None:
        outcome = ensure_exports(Request(exports=exports(options), file=FILE), Places())
        assert outcome.changed == changed

    ensure("rw", changed=True)
    return {
        "unchanged": median(lambda _: ensure("rw", changed=False)),
        "changed": median(lambda number: ensure("rw" if number % 2 else "ro", changed=True)),
        "exportfs": median(lambda _: _run(["/usr/sbin/exportfs", "-ra"])),
    }


def main() -> None:
    for suite in pins()["debian"]:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(copytree(server_tree(suite), Path(folder, "root"), symlinks=True)))
            for number in range(COUNT):
                server.path(f"/srv/e{number}").mkdir()
            seconds = server.call(measure)
        print(f"{suite}: {COUNT} exports, medians of {RUNS} runs")
        print(f"  exportfs -ra alone   {seconds['exportfs']:.3f} s")
        limit = 2 * seconds["exportfs"] + 0.2
        print(f"  module, all changed  {seconds['changed']:.3f} s   (limit 2 x exportfs + 0.2 s: {limit:.3f} s)")
        print(f"  module, unchanged    {seconds['unchanged']:.3f} s   (limit 0.3 s)")


if __name__ == "__main__":
    main()
