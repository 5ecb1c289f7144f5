# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the service's code on a stand-in of a machine: systemctl and the kernel's files below a folder.

What a real kernel and a real systemd make of it is shown by the molecule scenario nfs_server.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_service, _nfs_service_host
from ansible_collections.clusterkit.storage.plugins.module_utils._host_module import HostError
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_service_host import (
    Outcome,
    Places,
    Request,
    ensure_service,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

CONNECTION = "   0: 0B4DA8C0:0801 154DA8C0:03E7 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1\n"
LISTENING = "   1: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1\n"


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.places = Places(
            nfs_conf=str(root / "nfs.conf.d/zz-clusterkit.conf"),
            idmapd_conf=str(root / "idmapd.conf.d/zz-clusterkit.conf"),
            nfsd=str(root / "nfsd"),
            proc=str(root / "proc"),
            path=str(root / "bin"),
        )
        self.runs: list[str] = []
        self.states = {name: ["loaded", "active", "enabled"] for name in _nfs_service_host.UNITS}
        for folder in ("bin", "nfsd/clients", "proc/net", "proc/self"):
            (root / folder).mkdir(parents=True)
        for name in ("systemctl", "nfsidmap", "rpcinfo"):
            (root / "bin" / name).touch(mode=0o755)
        self.write("proc/meminfo", "MemTotal:       16777216 kB\n")
        self.write("proc/net/tcp", "head\n" + LISTENING)
        self.write("proc/self/mountinfo", "1 1 8:1 / / rw - ext4 /dev/vda rw\n")
        self.running(threads=8, versions="+3 +4 +4.1 +4.2")
        self.obeys = True

    def write(self, name: str, content: str) -> None:
        (self.root / name).write_text(content)

    def running(self, *, threads: int, versions: str) -> None:
        self.write("nfsd/threads", f"{threads}\n")
        self.write("nfsd/versions", f"{versions}\n")
        self.write("nfsd/portlist", "tcp 2049\ntcp 2049\n" if threads else "")
        self.write("nfsd/nfsv4gracetime", "90\n")
        self.write("nfsd/nfsv4leasetime", "90\n")

    def run(self, argv: Sequence[str], *, timeout: float, stdin: str | None = None) -> Finished:  # noqa: ARG002 (as the real one)
        words = [Path(argv[0]).name, *argv[1:]]
        out = ""
        if words[1] == "show":
            out = "\n".join(
                f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\n"
                for name, (load, active, file) in self.states.items()
            )
        elif words[0] == "systemctl":
            self.runs.append(" ".join(words[1:]))
            self.obey(words[1], words[2:])
        return Finished(list(argv), 0, out, "", timed_out=False)

    def obey(self, verb: str, names: list[str]) -> None:
        if verb == "mask":
            self.states.update({name: ["masked", "inactive", "masked"] for name in names if name.startswith("rpc")})
        if verb in ("restart", "start") and _nfs_service.SERVER in names and self.obeys:
            self.running(threads=16, versions="-3 +4 -4.0 +4.1 +4.2")
            self.states[_nfs_service.SERVER] = ["loaded", "active", "enabled"]

    def ensure(self, **wanted: Any) -> Outcome:
        return ensure_service(Request(**{"threads": "16", **wanted}), self.places)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    built = Machine(tmp_path)
    monkeypatch.setattr(_nfs_service_host._process, "run", built.run)
    return built


def test_threads_are_given_to_the_kernel_and_kept_in_the_file(machine: Machine) -> None:
    predicted = machine.ensure(check_mode=True)
    assert predicted.steps[-1] == "run 16 threads" and machine.runs == []
    outcome = machine.ensure()
    assert outcome.steps == predicted.steps and not outcome.restarted
    assert (machine.root / "nfsd/threads").read_text() == "16\n"
    assert "threads=16" in Path(machine.places.nfs_conf).read_text()
    assert machine.runs == [], "nothing is restarted for it"
    assert not machine.ensure().changed


def test_a_server_in_use_is_restarted_only_when_allowed(machine: Machine) -> None:
    machine.write("proc/net/tcp", "head\n" + LISTENING + CONNECTION)
    with pytest.raises(HostError, match="which a client uses") as caught:
        machine.ensure(versions=["4.1", "4.2"])
    assert not caught.value.changed and machine.runs == []
    assert not Path(machine.places.nfs_conf).exists()
    outcome = machine.ensure(versions=["4.1", "4.2"], allow_restart=True)
    assert outcome.restarted
    assert machine.runs[0] == "restart nfs-server.service"
    assert machine.runs[1].startswith("mask --now rpcbind.service rpcbind.socket")
    assert not machine.ensure(versions=["4.1", "4.2"]).changed


def test_a_client_without_a_connection_counts(machine: Machine) -> None:
    (machine.root / "nfsd/clients/12").mkdir()
    with pytest.raises(HostError, match="which a client uses"):
        machine.ensure(versions=["4.2"])


def test_a_kernel_that_did_not_obey_is_named(machine: Machine) -> None:
    machine.obeys = False
    with pytest.raises(HostError) as caught:
        machine.ensure(versions=["4.1", "4.2"])
    assert caught.value.changed
    assert any("versions 4.1, 4.2 wanted, 3, 4.0, 4.1, 4.2 in force" in problem for problem in caught.value.problems)


def test_a_server_that_is_down_is_started(machine: Machine) -> None:
    machine.running(threads=0, versions="")
    machine.states[_nfs_service.SERVER] = ["loaded", "inactive", "disabled"]
    outcome = machine.ensure()
    assert machine.runs == ["enable nfs-server.service", "start nfs-server.service"]
    assert outcome.threads == 16


def test_a_server_that_does_not_come_up_is_an_error(machine: Machine) -> None:
    machine.running(threads=0, versions="")
    machine.obeys = False
    with pytest.raises(HostError, match="no nfsd thread runs"):
        machine.ensure()


def test_a_server_that_is_not_installed(machine: Machine) -> None:
    machine.states = {_nfs_service.SERVER: ["not-found", "inactive", ""]}
    machine.running(threads=0, versions="")
    with pytest.raises(HostError, match="not installed"):
        machine.ensure()
    predicted = machine.ensure(check_mode=True)
    assert predicted.changed and predicted.warnings
    machine.states = {_nfs_service.SERVER: ["masked", "inactive", "masked"]}
    with pytest.raises(HostError, match="is masked"):
        machine.ensure()


def test_the_domain_of_names_is_kept_and_the_old_one_forgotten(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []

    def run(argv: Sequence[str], *, timeout: float, stdin: str | None = None) -> Finished:
        if Path(argv[0]).name == "nfsidmap":
            runs.append(list(argv[1:]))
            known = Path(machine.places.idmapd_conf)
            domain = "example.com" if known.exists() and "example.com" in known.read_text() else "localdomain"
            return Finished(list(argv), 0, f"{domain}\n", "", timed_out=False)
        return machine.run(argv, timeout=timeout, stdin=stdin)

    monkeypatch.setattr(_nfs_service_host._process, "run", run)
    assert machine.ensure(idmap_domain="example.com").changed
    assert ["-c"] in runs
    assert any("nfs-idmapd" in each for each in machine.runs)
    assert not machine.ensure(idmap_domain="example.com").changed
    assert machine.ensure(idmap_domain="example.org", check_mode=True).changed


def test_a_command_that_fails_is_told_with_its_words(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: Sequence[str], *, timeout: float, stdin: str | None = None) -> Finished:
        if argv[1] == "restart":
            return Finished(list(argv), 1, "", "Job failed", timed_out=False)
        return machine.run(argv, timeout=timeout, stdin=stdin)

    monkeypatch.setattr(_nfs_service_host._process, "run", run)
    with pytest.raises(HostError, match="Job failed"):
        machine.ensure(versions=["4.1", "4.2"])


def test_without_systemctl_nothing_is_done(machine: Machine) -> None:
    (machine.root / "bin/systemctl").unlink()
    with pytest.raises(HostError, match="systemctl is not installed here"):
        machine.ensure()


def test_a_file_that_cannot_be_written_is_a_failure(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(path: str, _content: str) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(_nfs_service_host._files, "replace_file", replace)
    with pytest.raises(HostError, match="Read-only file system"):
        machine.ensure()
    assert machine.runs == []


def test_ports_that_rpcbind_tells_are_compared(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "   program vers proto   port  service\n"
        "    100005    3   tcp  20048  mountd\n"
        "    100021    4   tcp  32803  nlockmgr\n"
    )

    def run(argv: Sequence[str], *, timeout: float, stdin: str | None = None) -> Finished:
        if Path(argv[0]).name == "rpcinfo":
            return Finished(list(argv), 0, told, "", timed_out=False)
        return machine.run(argv, timeout=timeout, stdin=stdin)

    monkeypatch.setattr(_nfs_service_host._process, "run", run)
    machine.ensure(ports={"mountd": 20048})
    assert not machine.ensure(ports={"mountd": 20048}).changed
    other = machine.ensure(ports={"mountd": 20049}, check_mode=True)
    assert other.changed


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("folder", ["nfs.conf.d", "idmapd.conf.d"])
def test_a_file_in_place_of_a_folder_is_named_before_anything_is_changed(
    folder: str, check_mode: bool, machine: Machine
) -> None:
    (machine.root / folder).write_text("[nfsd]\n")
    with pytest.raises(HostError) as caught:
        machine.ensure(threads="32", check_mode=check_mode)
    place = machine.root / folder
    assert caught.value.problems == [f"{place} is not a directory; {place}/zz-clusterkit.conf has to lie in it"]
    assert "nothing was changed" in caught.value.message
    assert (machine.runs, caught.value.changed) == ([], False)
    assert (machine.root / "nfsd/threads").read_text() == "8\n"
