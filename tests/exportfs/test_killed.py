# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any step leaves the old or the new file, complete, and the next run brings the table right.

strace(1) ends the process at the entry of one system call, for every call that it makes on files and processes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import Places, Request, ensure_exports

from tests.tracing import kill_at, run_traced, steps, was_killed

from .chroot import DROP_IN, FILE, Server, enter

NETWORK = "192.168.77.0/24"


def export(name: str, options: str = "rw") -> dict[str, Any]:
    return {"path": f"/srv/{name}", "clients": [{"host": NETWORK, "options": [options]}]}


OLD = [export("a"), export("b"), export("c", "ro")]
NEW = [export("a", "ro"), export("c", "ro"), export("disk", "rw,fsid=1")]  # a disk: systemd has to be told, too


def wait_for_exportfs(server: Server) -> None:
    """The killed run's exportfs lives on in a session of its own: wait for its end, as the next run's lock does not."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        links = [Path(entry.path, "root") for entry in os.scandir("/proc") if entry.name.isdigit()]
        if not any(_leads_to(link, server.root) for link in links):
            return
        time.sleep(0.01)
    raise AssertionError("a process still runs in the chroot")


def _leads_to(link: Path, root: Path) -> bool:
    try:
        return link.readlink() == root
    except OSError:
        return False


def test_killed_at_every_step(server: Server, tmp_path: Path) -> None:
    for name in "abc":
        server.path(f"/srv/{name}").mkdir()
    server.mounts = [("tmpfs", "/srv/disk")]
    server.install_systemctl()
    server.ensure(*NEW)
    new = server.state
    order = server.read(DROP_IN)
    server.ensure(*OLD)
    old = server.state
    assert old != new

    def change() -> None:
        ensure_exports(Request(exports=NEW, file=FILE), Places())

    def prepare() -> None:
        enter(server.root, server.mounts)

    log = tmp_path / "trace"
    assert run_traced(change, log, prepare=prepare) == 0
    assert server.state == new
    calls = steps(log)
    names = [name for name, _ in calls]
    assert names.count("rename") >= 2 and names.count("fsync") >= 4 and "unlink" in names, names

    seen = set()
    for name, number in calls:
        where = f"killed at {name} number {number}"
        server.ensure(*OLD)
        assert server.state == old
        assert was_killed(run_traced(change, log, *kill_at(name, number), prepare=prepare)), where
        wait_for_exportfs(server)
        file, table = server.state
        assert file in (old[0], new[0]), where
        assert table in (old[1], new[1]), where
        seen.add((file == new[0], table == new[1]))
        # The next run, whichever list it has. OLD comes first in half of the cases, so that both mend a broken state.
        for wanted, expected in ((NEW, new), (OLD, old))[:: 1 if number % 2 else -1]:
            server.ensure(*wanted)
            assert server.state == expected, where
            ordered = server.read(DROP_IN) if server.path(DROP_IN).exists() else ""
            assert ordered == server.read("/run/loaded") == (order if wanted is NEW else ""), where
        assert {path.name for path in server.path("/etc/exports.d").iterdir()} == {Path(FILE).name}, where
    assert {(False, False), (True, False), (True, True)} <= seen, "no kill hit the middle of the change"
