# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do the steps of a plan to recover on the node: unmount for pods that are being killed, mount anew what is stale.

Everything is judged by the mount table and by /proc, which ask no server. Every command is a child process with a
deadline, given /proc/self/mountinfo's own path (C(umount -c): no stat of it) and no helper (C(-i): umount.nfs would ask
the server of an NFSv3 mount).
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _files,
    _fstab,
    _mount_commands,
    _mount_options,
    _mounts,
    _nfs_probe,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished, run

PARALLEL = 8
PRECONDITION: dict[str, Any] = {
    "mount_id": {"type": "int", "required": True},
    "major_minor": {"type": "str", "required": True},
    "superblock": {"type": "list", "elements": "int"},
}
STEP: dict[str, Any] = {
    "id": {"type": "str"},
    "item": {"type": "str"},
    "action": {"type": "str", "choices": ["lazy", "abort", "remount"], "required": True},
    "path": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "options": {"type": "list", "elements": "str", "default": []},
    "trigger": {"type": "bool", "default": False},
    "pods": {"type": "list", "elements": "str", "default": []},
    "also": {"type": "list", "elements": "str", "default": []},
    "precondition": {"type": "dict", "required": True, "options": PRECONDITION},
}
# systemd's driver writes the dashes of a uid as underscores; static pods have a hash for a uid.
_POD_CGROUP = re.compile(r"/(?:kubepods[^/]*-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})\b")
# Where a mount is kubelet's own, also when another container sees it below another directory.
_KUBELET_PATH = re.compile(r"/pods/[^/]+/(?:volumes|volume-subpaths)/.*")
# Requests that a writer sends after its first ones were aborted wait anew.
_ABORT_AGAIN_SECONDS = 1.0
# Runs in a process of its own, with the mount namespace of a container and the paths there: umount2(MNT_FORCE), which
# nsenter(1) cannot do with the host's umount. The mount is busy and stays; its requests end.
_ABORT = """
import ctypes, os, sys
CLONE_NEWNS, MNT_FORCE, UMOUNT_NOFOLLOW = 0x20000, 1, 8
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open(sys.argv[1], os.O_RDONLY), CLONE_NEWNS):
    sys.exit("setns: " + os.strerror(ctypes.get_errno()))
for path in sys.argv[2:]:
    libc.umount2(os.fsencode(path), MNT_FORCE | UMOUNT_NOFOLLOW)
"""
# mount.nfs finds them out itself.
_OF_THE_KERNEL = frozenset({"addr", "clientaddr", "mountaddr", "mountport", "mountproto", "mountvers"})


@dataclass(frozen=True)
class Process:
    """A process of a pod. C(namespace) names its mount namespace; it has none any more once it is about to be gone."""

    pid: int
    pod: str
    command: str
    namespace: str


class Machine:
    """What the module does to the host it runs on; tests put a simulated one in its place."""

    proc = Path("/proc")

    def read_table(self) -> MountTable:
        return _mounts.read()

    def read_fstab(self) -> str:
        return _files.read_text(_fstab.FSTAB) or ""

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        return run(argv, timeout=timeout, env={"PATH": _mount_commands.SEARCH_PATH})

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def processes(self) -> Iterator[Process]:
        """Those that belong to pods."""
        for folder in self.proc.iterdir():
            if not folder.name.isdigit():
                continue
            # A process may end while we look.
            with contextlib.suppress(OSError):
                found = _POD_CGROUP.search((folder / "cgroup").read_text())
                if found and _is_alive(folder):
                    command = (folder / "comm").read_text(errors="replace").strip()
                    yield Process(int(folder.name), found[1].replace("_", "-"), command, _link(folder / "ns" / "mnt"))

    def mounts_of(self, process: Process) -> list[Mount]:
        with contextlib.suppress(OSError):
            content = (self.proc / str(process.pid) / "mountinfo").read_bytes()
            return _mounts.parse(content.decode("utf-8", "surrogateescape"))
        return []

    def abort_inside(self, process: Process, paths: Sequence[str], timeout: float) -> Finished:
        """End the requests of mounts in a container, by its own paths of them."""
        namespace = str(self.proc / str(process.pid) / "ns" / "mnt")
        return self.run([sys.executable or "python3", "-I", "-S", "-c", _ABORT, namespace, *paths], timeout)

    def own_namespace(self) -> str:
        return _link(self.proc / "self" / "ns" / "mnt")


def _is_alive(folder: Path) -> bool:
    """Whether a thread of the process runs or waits: the first one may have ended before others that cannot."""
    for thread in (folder / "task").iterdir():
        with contextlib.suppress(OSError):
            # The command in brackets may contain anything.
            state = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state not in "ZX":
                return True
    return False


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return str(path.readlink())
    return ""


@dataclass
class Step:
    """A step and what became of it."""

    given: Mapping[str, Any]
    state: str = "planned"  # done, gone, stale, failed; planned: check mode
    reason: str = ""

    @property
    def path(self) -> str:
        return str(self.given["path"])

    @property
    def mount_id(self) -> int:
        return int(self.given["precondition"]["mount_id"])

    @property
    def device(self) -> str:
        return str(self.given["precondition"]["major_minor"])

    def end(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason

    def to_dict(self) -> dict[str, Any]:
        names = ("id", "item", "action", "path", "source")
        return {**{name: self.given.get(name) for name in names}, "state": self.state, "reason": self.reason}


class Runner:
    """One call of the module."""

    def __init__(self, machine: Machine, *, timeout: float, patience: float, check_mode: bool) -> None:
        """C(timeout): seconds of one command; C(patience): seconds for the processes of aborted pods to end."""
        self.machine = machine
        self.timeout = timeout
        self.patience = patience
        self.check_mode = check_mode

    def apply(self, given: Sequence[Mapping[str, Any]]) -> list[Step]:
        steps = [Step(one) for one in given]
        table = self.machine.read_table()
        for step in steps:
            _judge(step, table)
        self._judge_superblocks([one for one in steps if one.given["action"] == "abort"], table)
        if self.check_mode:
            return steps
        todo = [one for one in steps if one.state == "planned"]
        aborts: dict[str, list[Step]] = {}
        for step in todo:
            if step.given["action"] == "abort":
                aborts.setdefault(step.device, []).append(step)
        jobs: list[Callable[[], None]] = [
            *(lambda group=group: self._abort(group) for group in aborts.values()),
            *(lambda step=one: self._lazy(step) for one in todo if one.given["action"] == "lazy"),
            *(lambda step=one: self._remount(step) for one in todo if one.given["action"] == "remount"),
        ]
        if jobs:
            with ThreadPoolExecutor(max_workers=min(PARALLEL, len(jobs))) as pool:
                for waiting in [pool.submit(job) for job in jobs]:
                    waiting.result()
        return steps

    def _judge_superblocks(self, steps: Sequence[Step], table: MountTable) -> None:
        """Whoever has come to a superblock since the plan was made must not be hit."""
        if not any(one.state == "planned" for one in steps):
            return
        containers = list(self._users_in_containers({one.device for one in steps}, table))
        for step in steps:
            if step.state != "planned":
                continue
            known = set(step.given["precondition"].get("superblock") or [])
            new = sorted(one.path for one in table.mounts if one.device == step.device and one.mount_id not in known)
            allowed = {*step.given["pods"], *step.given["also"]}
            others = sorted({pod for device, pod in containers if device == step.device} - allowed)
            if new:
                step.end("stale", f"mounts were added to its superblock since then: {', '.join(new)}; make a new plan")
            elif others:
                step.end("stale", f"its superblock is also in use by pods {', '.join(others)}; make a new plan")

    def _users_in_containers(self, devices: set[str], table: MountTable) -> Iterator[tuple[str, str]]:
        """Superblock and pod of what is mounted inside containers, also where the host has unmounted it lazily."""
        own = {_kubelet_path(one.path) for one in table.mounts if one.device in devices} - {""}
        seen = {self.machine.own_namespace()}
        for process in self.machine.processes():
            mounts = [] if process.namespace in seen else self.machine.mounts_of(process)
            if mounts:
                seen.add(process.namespace)
            for mount in mounts:
                # Monitoring agents and CSI drivers see all mounts of the host, and use none of them.
                if mount.device in devices and _kubelet_path(mount.path) not in own:
                    yield mount.device, process.pod

    # Steps -----------------------------------------------------------------------------------------

    def _umount(self, step: Step, *options: str) -> Finished:
        return self.machine.run(["umount", "-c", "-i", *options, "--", step.path], self.timeout)

    def _is_mounted(self, step: Step) -> bool:
        return any(one.mount_id == step.mount_id and one.path == step.path for one in self.machine.read_table().mounts)

    def _lazy(self, step: Step, *options: str) -> None:
        finished = self._umount(step, *options, "-l")
        if self._is_mounted(step):
            step.end("failed", finished.complaint() or "umount reported success, but it is mounted still")
        else:
            step.end("done")

    def _abort(self, steps: Sequence[Step]) -> None:
        """End all requests of one superblock, again and again until nobody of its pods waits, and unmount.

        The host's mounts go at once as a rule: a container has mounts of its own, and by these it is aborted again.
        """
        pods = {pod for step in steps for pod in step.given["pods"]}
        deadline = time.monotonic() + self.patience
        for step in steps:
            self._umount(step, "-f")
        while True:
            holders = self._holders(steps[0].device, pods)
            if not holders or time.monotonic() > deadline:
                break
            for process, paths in holders:
                self.machine.abort_inside(process, paths, self.timeout)
            self.machine.sleep(_ABORT_AGAIN_SECONDS)
        for step in steps:
            if self._is_mounted(step):
                self._lazy(step, "-f")
            else:
                step.end("done")

    def _holders(self, device: str, pods: set[str]) -> list[tuple[Process, list[str]]]:
        """One process of each container of these pods that has the superblock mounted, and where.

        The process of the sandbox has not, and goes last.
        """
        found: dict[str, tuple[Process, list[str]]] = {}
        for process in self.machine.processes():
            if process.pod not in pods or process.namespace in found:
                continue
            paths = [one.path for one in self.machine.mounts_of(process) if one.device == device]
            if paths and process.namespace != self.machine.own_namespace():
                found[process.namespace] = (process, paths)
        return list(found.values())

    def _remount(self, step: Step) -> None:
        options = self._mount_options(step)
        source = step.given["source"]
        # The same options as afterwards, so that it is known to work; over a local directory, which nobody else sees.
        place = _nfs_probe.place_to_mount(self.machine.read_table())
        trial = _mount_commands.try_mount(_mount_commands.mount(source, place, options), place, 0)
        tried = self.machine.run(trial, self.timeout)
        if not tried.succeeded:
            why = _mount_commands.failure(tried, source, options)
            step.end("failed", f"{why}; the stale mount stays: without it, files would be written to the local disk")
            return
        self._umount(step)
        if self._is_mounted(step):
            # Busy: those who hold it can do nothing with it but close it.
            finished = self._umount(step, "-l")
            if self._is_mounted(step):
                step.end("failed", finished.complaint() or "umount reported success, but it is mounted still")
                return
        if step.given["trigger"]:
            # To mount by hand would make the trigger mount too, and one would lie on the other.
            step.end("done")
            return
        mounted = self.machine.run(_mount_commands.mount(source, step.path, options), self.timeout)
        if mounted.succeeded:
            step.end("done")
        else:
            why = _mount_commands.failure(mounted, source, options)
            step.end("failed", f"the stale mount is gone, and the new one failed: {why}")

    def _mount_options(self, step: Step) -> list[str]:
        """As fstab says; where it does not, as they were."""
        for entry in _fstab.entries_at(_fstab.parse(self.machine.read_fstab()), step.path):
            if entry.source == step.given["source"]:
                return _mount_options.for_a_mount_now(entry.options)
        return [
            option
            for option in dict.fromkeys(step.given["options"])
            if option.partition("=")[0] not in _OF_THE_KERNEL and not _mount_options.problems([option])
        ]

    # What is left ----------------------------------------------------------------------------------

    def left_of(self, pods: Iterable[str]) -> list[dict[str, Any]]:
        """Mounts and processes that a pod still has here."""
        wanted = list(dict.fromkeys(pods))
        table = self.machine.read_table()
        processes: dict[str, list[str]] = {}
        for process in self.machine.processes() if wanted else ():
            processes.setdefault(process.pod, []).append(f"{process.pid} ({process.command})")
        return [
            {
                "uid": uid,
                "mounts": sorted(one.path for one in table.mounts if f"/pods/{uid}/" in one.path and one.is_nfs),
                "processes": sorted(processes.get(uid, [])),
            }
            for uid in wanted
        ]


def _judge(step: Step, table: MountTable) -> None:
    """Whether the mount is the one that the plan was made for, and can be unmounted alone."""
    mount = next((one for one in table.mounts if one.mount_id == step.mount_id), None)
    at_path = [one for one in table.mounts if one.path == step.path and one.is_nfs]
    if mount is None or (mount.path, mount.device, mount.source) != (step.path, step.device, step.given["source"]):
        if at_path:
            step.end("stale", f"another mount is there now ({at_path[-1].source}); make a new plan")
        else:
            step.end("gone", "is not mounted any more")
        return
    on_top = table.find(step.path).top
    below = [one.path for one in table.below(mount)]
    if on_top is not mount:
        step.end("stale", "something is mounted over it; make a new plan")
    elif below:
        step.end("stale", f"there are mounts below it: {', '.join(below)}; make a new plan")


def _kubelet_path(path: str) -> str:
    found = _KUBELET_PATH.search(path)
    return found[0] if found else ""
