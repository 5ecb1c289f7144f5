# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to a node is what the plan says, to the mounts that it says, and never waits for a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_host import Machine, Process, Runner

ROOT = "1 0 254:1 / / rw shared:1 - ext4 /dev/vda rw"
POD = "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~nfs/v"
UID, OTHER = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))


def line(mount_id: int, path: str, device: str = "0:50", source: str = "s:/nfs/1", parent: int = 1) -> str:
    return f"{mount_id} {parent} {device} / {path} rw shared:9 - nfs4 {source} rw,vers=4.2,addr=192.0.2.10"


class Simulated(Machine):
    """A host whose mounts go when umount says so, and whose writers end when they are aborted often enough."""

    def __init__(self, *lines: str, aborts_needed: int = 1, fstab: str = "", broken: Sequence[str] = ()) -> None:
        self.table = _mounts.parse("\n".join([ROOT, *lines]))
        self.commands: list[str] = []
        self.pods: dict[str, list[Mount]] = {}  # processes of pods, and what their containers have mounted
        self.busy: set[str] = set()  # paths that something on the host itself holds
        self.slept = 0.0
        self._aborts_needed = aborts_needed
        self._fstab = fstab
        self._broken = broken

    def read_table(self) -> MountTable:
        return MountTable(self.table)

    def read_fstab(self) -> str:
        return self._fstab

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def processes(self) -> Iterator[Process]:
        for number, pod in enumerate(self.pods):
            yield Process(number, pod, "sh", f"mnt:[{pod}]")

    def mounts_of(self, process: Process) -> list[Mount]:
        return self.pods[process.pod]

    def own_namespace(self) -> str:
        return "mnt:[1]"

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        assert timeout > 0
        words = " ".join(argv)
        self.commands.append(words)
        fails = any(each in words for each in self._broken)
        if "setns" in words:
            self.commands[-1] = f"abort in {' '.join(argv[5:])}"
            self._abort("0:50")
        elif argv[0] == "umount" and not fails:
            self._umount(argv)
        elif argv[0] == "mount" and not fails:
            self.table += _mounts.parse(line(999, argv[-1], "0:77"))
        return Finished(list(argv), 32 if fails else 0, "", "broken" if fails else "", False)

    def _umount(self, argv: Sequence[str]) -> None:
        (mount,) = [one for one in self.table if one.path == argv[-1]]
        if "-f" in argv:
            self._abort(mount.device)
        if "-l" in argv or mount.path not in self.busy:
            self.table = [one for one in self.table if one is not mount]

    def _abort(self, device: str) -> None:
        self._aborts_needed -= 1
        if self._aborts_needed <= 0:
            self.pods = {pod: at for pod, at in self.pods.items() if device not in [one.device for one in at]}


def container(device: str = "0:50", path: str = "/data") -> list[Mount]:
    return _mounts.parse(line(7, path, device))


def step(action: str, mount_id: int, path: str, device: str = "0:50", **more: Any) -> dict[str, Any]:
    return {
        "id": str(mount_id),
        "item": f"node1:{path}",
        "action": action,
        "path": path,
        "source": "s:/nfs/1",
        "options": [],
        "trigger": False,
        "pods": [],
        "also": [],
        "precondition": {"mount_id": mount_id, "major_minor": device, **more.pop("precondition", {})},
        **more,
    }


def abort(*paths: str, pods: Sequence[str] = (UID,), known: Sequence[int] = ()) -> list[dict[str, Any]]:
    ids = list(range(10, 10 + len(paths)))
    return [
        step("abort", number, path, pods=list(pods), precondition={"superblock": [*ids, *known]})
        for number, path in zip(ids, paths, strict=True)
    ]


def states(machine: Machine, steps: list[dict[str, Any]], **more: Any) -> list[tuple[str, str]]:
    runner = Runner(machine, **{"timeout": 1, "patience": 5, "check_mode": False, **more})
    return [(one.state, one.reason) for one in runner.apply(steps)]


def test_requests_are_aborted_until_the_writers_are_gone() -> None:
    a, b = POD.format(UID), "/var/lib/kubelet/pods/x/volumes/kubernetes.io~nfs/w"
    machine = Simulated(line(10, a), line(11, b), line(12, "/srv", "0:51"), aborts_needed=4)
    machine.pods = {UID: container()}
    machine.busy = {b}
    assert states(machine, abort(a, b)) == [("done", ""), ("done", "")]
    assert machine.commands == [
        f"umount -c -i -f -- {a}",
        f"umount -c -i -f -- {b}",
        "abort in /proc/0/ns/mnt /data",
        "abort in /proc/0/ns/mnt /data",
        f"umount -c -i -f -l -- {b}",
    ]
    assert machine.slept == 2
    assert [one.path for one in machine.table] == ["/", "/srv"]


def test_a_writer_that_does_not_end_holds_nobody_up() -> None:
    a = POD.format(UID)
    machine = Simulated(line(10, a), aborts_needed=10**6)
    machine.pods = {UID: container()}
    began = time.monotonic()
    assert states(machine, abort(a), patience=0) == [("done", "")]
    assert time.monotonic() - began < 1
    assert machine.commands == [f"umount -c -i -f -- {a}"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(10, "/a", "0:99")], "another mount is there now (s:/nfs/1)"),
        ([line(99, "/a")], "another mount is there now (s:/nfs/1)"),
        ([line(10, "/a", source="s:/other")], "another mount is there now (s:/other)"),
        ([line(10, "/a"), line(11, "/a", parent=10)], "something is mounted over it"),
        ([line(10, "/a"), line(11, "/a/b", parent=10)], "there are mounts below it: /a/b"),
    ],
)
@pytest.mark.parametrize("action", ["lazy", "abort", "remount"])
def test_another_mount_than_planned_is_not_touched(action: str, lines: list[str], words: str) -> None:
    machine = Simulated(*lines)
    ((state, reason),) = states(machine, [step(action, 10, "/a", precondition={"superblock": [10, 11]})])
    assert state == "stale"
    assert words in reason
    assert machine.commands == []


def test_what_is_not_mounted_any_more_is_gone_and_nothing_is_done() -> None:
    machine = Simulated(line(11, "/b"))
    assert states(machine, [step("lazy", 10, "/a")]) == [("gone", "is not mounted any more")]
    assert machine.commands == []


def test_whoever_has_come_to_the_superblock_since_the_plan_is_not_hit() -> None:
    a = POD.format(UID)
    newcomer = Simulated(line(10, a), line(20, "/new"))
    ((state, reason),) = states(newcomer, abort(a))
    assert (state, newcomer.commands) == ("stale", [])
    assert "mounts were added to its superblock since then: /new" in reason
    # Its mount on the host was unmounted lazily before, so that only its container shows it.
    hidden = Simulated(line(10, a))
    hidden.pods = {UID: container(), OTHER: container()}
    ((state, reason),) = states(hidden, abort(a))
    assert (state, hidden.commands) == ("stale", [])
    assert f"also in use by pods {OTHER}" in reason
    shared = Simulated(line(10, a))
    shared.pods = {OTHER: container()}
    allowed = [{**one, "also": [OTHER]} for one in abort(a)]
    assert states(shared, allowed) == [("done", "")]
    assert shared.commands == [f"umount -c -i -f -- {a}"], "nobody waits for those that go on"


def test_containers_that_see_all_mounts_of_the_host_do_not_count() -> None:
    a = POD.format(UID)
    machine = Simulated(line(10, a))
    machine.pods = {OTHER: container(path="/host" + a)}
    assert states(machine, abort(a), patience=0) == [("done", "")]


def test_lazy_and_failed_steps_are_told_one_by_one() -> None:
    machine = Simulated(line(10, "/a"), line(11, "/b"), broken=["-- /b"])
    assert states(machine, [step("lazy", 10, "/a"), step("lazy", 11, "/b")]) == [
        ("done", ""),
        ("failed", "umount -c -i -l -- /b: exit status 32: broken"),
    ]


def test_a_stale_mount_is_replaced_only_by_one_that_works() -> None:
    works = Simulated(line(10, "/a"))
    options = ["rw", "relatime", "vers=4.2", "hard", "clientaddr=192.0.2.1", "addr=192.0.2.10", "nonsense"]
    assert states(works, [step("remount", 10, "/a", options=options)]) == [("done", "")]
    mount = "mount -t nfs -o rw,relatime,vers=4.2,hard,retry=0 s:/nfs/1"
    assert works.commands[0].startswith("unshare --mount --propagation private -- sh -c ")
    assert f" sh 0 /mnt {mount} /mnt" in works.commands[0]
    assert works.commands[1:] == ["umount -c -i -- /a", f"{mount} /a"]
    broken = Simulated(line(10, "/a"), broken=["unshare"])
    ((state, reason),) = states(broken, [step("remount", 10, "/a")])
    assert state == "failed"
    assert "the stale mount stays" in reason
    assert len(broken.commands) == 1


def test_fstab_says_how_it_is_mounted_and_a_busy_one_goes_lazily() -> None:
    machine = Simulated(line(10, "/a"), fstab="s:/nfs/1 /a nfs soft,_netdev 0 0\n")
    machine.busy = {"/a"}
    assert states(machine, [step("remount", 10, "/a", options=["hard"])]) == [("done", "")]
    assert machine.commands[1:] == [
        "umount -c -i -- /a",
        "umount -c -i -l -- /a",
        "mount -t nfs -o soft,retry=0 s:/nfs/1 /a",
    ]
    trigger = Simulated(line(10, "/a"))
    assert states(trigger, [step("remount", 10, "/a", trigger=True)]) == [("done", "")]
    assert trigger.commands[1:] == ["umount -c -i -- /a"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (["umount -c"], "exit status 32: broken"),
        (["mount -t nfs -o retry=0 s:/nfs/1 /a"], "the new one failed: broken"),
    ],
)
def test_a_remount_that_fails_says_how_far_it_came(broken: list[str], words: str) -> None:
    machine = Simulated(line(10, "/a"), broken=broken)
    ((state, reason),) = states(machine, [step("remount", 10, "/a")])
    assert state == "failed"
    assert words in reason


def test_check_mode_judges_and_touches_nothing() -> None:
    machine = Simulated(line(10, "/a"), line(12, "/c"), line(13, "/d"))
    steps = [step("lazy", 10, "/a"), step("lazy", 11, "/b"), step("abort", 12, "/c", precondition={"superblock": [12]})]
    found = states(machine, steps, check_mode=True)
    assert [state for state, _reason in found] == ["planned", "gone", "stale"]
    assert machine.commands == []


def test_what_is_left_of_a_pod_is_told() -> None:
    machine = Simulated(line(10, POD.format(UID)), line(11, "/b"))
    machine.pods = {UID: [], OTHER: []}
    runner = Runner(machine, timeout=1, patience=1, check_mode=False)
    assert runner.left_of([UID, UID, "gone"]) == [
        {"uid": UID, "mounts": [POD.format(UID)], "processes": ["0 (sh)"]},
        {"uid": "gone", "mounts": [], "processes": []},
    ]
    assert runner.left_of([]) == []


# The real /proc -------------------------------------------------------------------------------------------


def make_process(proc: Path, pid: int, cgroup: str, states: Sequence[str] = ("S",)) -> None:
    folder = proc / str(pid)
    for number, state in enumerate(states):
        (folder / "task" / str(pid + number)).mkdir(parents=True)
        (folder / "task" / str(pid + number) / "stat").write_text(f"{pid + number} (a) b) {state} 1 1\n")
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    (folder / "comm").write_text("sh\n")
    (folder / "ns").mkdir()
    (folder / "ns" / "mnt").symlink_to(f"mnt:[{pid}]")
    (folder / "mountinfo").write_text(line(7, "/data") + "\n")


def test_processes_are_found_by_the_cgroups_of_pods(tmp_path: Path) -> None:
    systemd = UID.replace("-", "_")
    make_process(
        tmp_path, 10, f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice/cri-1"
    )
    make_process(tmp_path, 20, f"/kubepods/burstable/pod{OTHER}/2", ["Z", "D"])
    make_process(tmp_path, 30, f"/kubepods/burstable/pod{OTHER}/2", ["Z"])
    make_process(tmp_path, 40, f"/kubepods/pod{'f' * 32}/2")
    make_process(tmp_path, 50, "/system.slice/podman.service")
    (tmp_path / "60").mkdir()
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "mnt").symlink_to("mnt:[1]")
    machine = Machine()
    machine.proc = tmp_path
    found = sorted(machine.processes(), key=lambda one: one.pid)
    assert [(one.pid, one.pod, one.namespace) for one in found] == [
        (10, UID, "mnt:[10]"),
        (20, OTHER, "mnt:[20]"),
        (40, "f" * 32, "mnt:[40]"),
    ], "one whose first thread has ended lives on in the others; one that is wholly a zombie does not"
    assert [one.path for one in machine.mounts_of(found[0])] == ["/data"]
    assert machine.mounts_of(Process(99, UID, "sh", "")) == []
    assert machine.own_namespace() == "mnt:[1]"
    (tmp_path / "10" / "ns" / "mnt").unlink()
    assert next(iter(one for one in machine.processes() if one.pid == 10)).namespace == ""


def test_the_real_machine_answers() -> None:
    machine = Machine()
    assert machine.read_table().mounts
    assert machine.run(["true"], 5).succeeded
    assert machine.own_namespace().startswith("mnt:")
    assert isinstance(machine.read_fstab(), str)
    assert all(one.pid for one in machine.processes())
    machine.sleep(0)
