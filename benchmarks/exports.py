# SPDX-License-Identifier: GPL-3.0-or-later
"""1,000 exports in one call of the module's code, beside `exportfs -ra` alone: python -m benchmarks.exports

On this computer, with the exportfs of Debian in a chroot; inside the module, imports not counted; medians of 5.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import (
    Places,
    Request,
    ensure_exports,
)

from lab.server_tree import server_tree
from lab.settings import pins
from tests.exportfs.chroot import FILE, Server, _run

COUNT, RUNS = 1000, 5


def exports(options: str) -> list[dict[str, Any]]:
    return [
        {
            "path": f"/srv/e{number}",
            "clients": [{"host": f"10.{number // 250}.{number % 250}.0/24", "options": [options]}],
        }
        for number in range(COUNT)
    ]


def ensure(options: str) -> tuple[float, float, bool]:
    """Run the module's code once: seconds, seconds of the processor, whether it changed anything. In the chroot."""
    wanted = exports(options)
    began, began_cpu = time.perf_counter(), time.process_time()
    outcome = ensure_exports(Request(exports=wanted, file=FILE), Places())
    return time.perf_counter() - began, time.process_time() - began_cpu, outcome.changed


def exportfs() -> tuple[float, float, bool]:
    began = time.perf_counter()
    _run(["/usr/sbin/exportfs", "-ra"])
    return time.perf_counter() - began, 0.0, False


def measure(server: Server, work: Callable[..., Any], *options: str) -> tuple[float, float, list[bool]]:
    """Medians of runs, each in a process of its own, as a module runs: no cache is warm."""
    runs = [server.call(work, *options[number % 2 : number % 2 + 1]) for number in range(RUNS)]
    return (
        statistics.median(run[0] for run in runs),
        statistics.median(run[1] for run in runs),
        [run[2] for run in runs],
    )


def main() -> None:
    for suite in pins()["debian"]:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(copytree(server_tree(suite), Path(folder, "root"), symlinks=True)))
            for number in range(COUNT):
                server.path(f"/srv/e{number}").mkdir()
            server.call(ensure, "rw")
            alone, _, _ = measure(server, exportfs)
            unchanged, unchanged_cpu, none = measure(server, ensure, "rw", "rw")
            changed, changed_cpu, every = measure(server, ensure, "ro", "rw")
            assert not any(none) and all(every)
        print(f"{suite}: {COUNT} exports, medians of {RUNS} runs, seconds (of them busy in the module's own process)")
        print(f"  exportfs -ra alone   {alone:.3f}")
        print(
            f"  module, all changed  {changed:.3f} ({changed_cpu:.3f})  limit 2 x exportfs + 0.2: {2 * alone + 0.2:.3f}"
        )
        print(f"  module, unchanged    {unchanged:.3f} ({unchanged_cpu:.3f})  limit 0.3")


if __name__ == "__main__":
    main()
