# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole lab: up, down, snapshots, and what can be done to its machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import random
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from lab import binaries, cache, control_plane, images, machine, node
from lab.cache import locked
from lab.command import run
from lab.control_plane import ControlPlane, Ports
from lab.machine import Guest, Wiring, accelerator, every
from lab.process import Process
from lab.progress import say, step
from lab.settings import STATE, LabError, Options, cache_folder, hash_of_files, machines

FINISHED = "finished"
PLAN = "lab.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a lab must keep to be the same lab after a restore: options, ports, wiring."""

    options: Options
    ports: Ports
    wiring: dict[str, Wiring]
    parts: dict[str, list[str]]  # cache entries that the lab stands on: name, and which making of it

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> Plan:
        data = json.loads(path.read_text())
        wiring = {name: Wiring(**w) for name, w in data["wiring"].items()}
        return Plan(Options(**data["options"]), Ports(**data["ports"]), wiring, data["parts"])

    def part(self, kind: str) -> Path:
        return cache_folder() / self.parts[kind][0]

    def missing(self) -> str | None:
        """A cache entry below this lab that is gone, or was made anew since: its disks would not fit."""
        for name, build in self.parts.values():
            if cache.build_of(cache_folder() / name) != build:
                return name
        return None

    def busy(self) -> list[str]:
        """Addresses of this lab that somebody else listens on now."""
        wanted = [("127.0.0.1", port) for port in dataclasses.astuple(self.ports)]
        wanted += [("127.0.0.1", w.ssh_port) for w in self.wiring.values()]
        wanted += [(w.kubelet_address, 10250) for w in self.wiring.values()]
        return [f"{address}:{port}" for address, port in wanted if not _free(address, port)]


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def make_parts(options: Options) -> dict[str, list[str]]:
    """Everything that a lab is made of; from the cache, or built now.

    Beside Kubernetes, which takes longest, the others follow one another: downloads and links leave processors idle.
    """
    with ThreadPoolExecutor(2) as pool:
        parts = {
            "kubernetes": pool.submit(binaries.kubernetes, options.kubernetes),
            "machine": pool.submit(images.machine, options.debian),
            "etcd": pool.submit(binaries.etcd),
            "containerd": pool.submit(binaries.containerd),
        }
        if options.images == "build":
            parts["provisioner"] = pool.submit(binaries.provisioner)
        made = {kind: part.result() for kind, part in parts.items()}
    folders = {kind: made[kind] for kind in ("machine", "kubernetes", "etcd")} | {"payload": images.payload(options)}
    return {kind: [folder.name, str(cache.build_of(folder))] for kind, folder in folders.items()}


def new_plan(options: Options, parts: dict[str, list[str]]) -> Plan:
    """Choose a free block of ports; loopback addresses, segment and MACs follow from its first port.

    Below 32768, so that no outgoing connection of this computer takes one meanwhile (ip(7),
    ip_local_port_range).
    """
    members = machines(options)
    for _attempt in range(200):
        base = random.randrange(20000, 32000, 20)  # noqa: S311 (no secret)
        high, low = divmod(base, 256)
        wiring = {
            m.name: Wiring(
                ssh_port=base + 10 + index,
                kubelet_address=f"127.{high}.{low}.{m.number}",
                multicast=f"239.77.{high}.{low}:{base}",
                mac=f"52:54:{high:02x}:{low:02x}:{m.number:02x}",
            )
            for index, m in enumerate(members)
        }
        plan = Plan(options, Ports(base, base + 1, base + 2, base + 3, base + 4), wiring, parts)
        if not plan.busy():
            return plan
    raise LabError("no free block of 20 ports between 20000 and 32000 found in 200 tries")


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("[a-z]*"))


class Lab:
    """The lab of this checkout."""

    def __init__(self, folder: Path = STATE) -> None:
        self.folder = folder
        self.snapshots = folder / "snapshots"
        self._run = folder / "run"

    # State ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        with locked(self.folder / "lock", waiting_for="changes to this lab"):
            yield

    @property
    def plan(self) -> Plan:
        path = self._run / PLAN
        if not path.exists():
            raise LabError("there is no lab; `make lab-up` makes one")
        return Plan.read(path)

    @property
    def guests(self) -> list[Guest]:
        plan = self.plan
        return [Guest(m, plan.wiring[m.name], self._run, plan.part("machine")) for m in machines(plan.options)]

    def guest(self, name: str) -> Guest:
        for guest in self.guests:
            if guest.machine.name == name:
                return guest
        names = ", ".join(g.machine.name for g in self.guests)
        raise LabError(f"there is no machine {name!r}; there are {names}")

    @property
    def control_plane(self) -> ControlPlane:
        plan = self.plan
        return ControlPlane(self._run, plan.ports, plan.part("kubernetes"), plan.part("etcd"))

    @property
    def complete(self) -> bool:
        return (self._run / FINISHED).exists()

    def ready(self, options: Options) -> bool:
        """Up with these options, every process alive."""
        return self.alive() and self.plan.options == options

    def alive(self) -> bool:
        return self.complete and all(p.pid for p in self._processes())

    def _processes(self) -> list[Process]:
        """All that was started, in the order to end it; known without the cache."""
        found = [Process(self._run, path.stem) for path in sorted(self._run.glob("*.process"))]
        last = ["kube-apiserver", "etcd"]  # in this order: an API server without etcd takes long to end
        return sorted(found, key=lambda p: last.index(p.name) if p.name in last else -1)

    # Up and down ---------------------------------------------------------------------------------

    def up(self, options: Options) -> None:
        if self.ready(options):
            say("is up")
            return
        if (self._run / PLAN).exists():
            say("what is left of another or an interrupted lab is taken down first")
            self.down()
        parts = make_parts(options)
        inputs = self._inputs(options, parts)
        if not self._wake(inputs):
            self._make(options, parts)
            self._keep(inputs)

    @staticmethod
    def _inputs(options: Options, parts: dict[str, list[str]]) -> dict[str, object]:
        """Everything that a finished lab depends on."""
        sources = (control_plane, images, machine, node)
        return {
            "options": dataclasses.asdict(options),
            "parts": parts,
            "sources": hash_of_files(*(Path(str(s.__file__)) for s in sources)),
            "qemu": run(["qemu-system-x86_64", "--version"]).splitlines()[0],
            "accelerator": accelerator(),
            "processor": platform.machine(),
        }

    def _wake(self, inputs: dict[str, object]) -> bool:
        """Restore a finished lab from the cache, one whose ports are free now."""
        for slot in range(8):
            found = cache.find("lab", {**inputs, "slot": slot})
            if not found:
                return False
            plan = Plan.read(found / PLAN)
            busy = plan.busy()
            if busy:
                say(f"the kept lab {found.name} needs {busy[0]}, which is taken: looking for another")
                continue
            self._load(found)
            return True
        return False

    def _keep(self, inputs: dict[str, object]) -> None:
        for slot in range(8):
            if not cache.find("lab", {**inputs, "slot": slot}):
                cache.entry("lab", {**inputs, "slot": slot}, self._save)
                return

    def _make(self, options: Options, parts: dict[str, list[str]]) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        new_plan(options, parts).write(self._run / PLAN)
        payload = self.plan.part("payload") / "payload.img"
        guests, plane = self.guests, self.control_plane
        nodes = [g for g in guests if g.machine.role == "node"]
        with step("boot the machines"):
            for guest in guests:
                guest.make_disks()
                guest.start(payload if guest in nodes else None)
            plane.make_certificates(g.machine for g in nodes)
            plane.start()
            every(guests, Guest.wait_ssh)
        with step("set the machines up"):
            every(guests, lambda g: self._configure(g, plane, options))
        with step("wait for the nodes to be Ready"):
            every(nodes, lambda g: self._adopt(g, plane))
        (self._run / FINISHED).touch()

    @staticmethod
    def _configure(guest: Guest, plane: ControlPlane, options: Options) -> None:
        node.configure_base(guest, options)
        if guest.machine.role == "server":
            node.configure_server(guest, options)
        else:
            node.configure_node(guest, plane)

    @staticmethod
    def _adopt(guest: Guest, plane: ControlPlane) -> None:
        name, deadline = guest.machine.name, time.monotonic() + 300
        while not plane.node(name):
            _patience(deadline, f"{name} has not registered; `python -m lab ssh {name} journalctl -u kubelet`")
        plane.adopt(name, guest.wiring.kubelet_address)
        _wait_nodes(plane, [guest], patience=300)

    def down(self) -> None:
        """End every process of the lab and remove its machines; named snapshots stay."""
        for process in self._processes():
            process.stop()
        if self._run.exists():
            shutil.rmtree(self._run)

    # Snapshots -----------------------------------------------------------------------------------

    def snapshot(self, name: str) -> None:
        target, partial = self.snapshots / _checked(name), self.snapshots / f".{name}.partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        self._save(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)

    def restore(self, name: str) -> None:
        source = self.snapshots / _checked(name)
        if not source.exists():
            raise LabError(f"there is no snapshot {name!r}; there are: {', '.join(_names(self.snapshots)) or 'none'}")
        self.down()
        plan = Plan.read(source / PLAN)
        if missing := plan.missing():
            raise LabError(f"snapshot {name} stands on {missing}, which is no longer in the cache: make it anew")
        busy = plan.busy()
        if busy:
            raise LabError(f"snapshot {name} needs {', '.join(busy)}, taken by another process: `lab down`, `lab up`")
        self._load(source)

    def _save(self, folder: Path) -> None:
        """All machines, then etcd, at one frozen moment; everything goes on afterwards."""
        guests, plane = self.guests, self.control_plane
        with step("save machines and etcd"):
            every(guests, Guest.freeze)
            plane.stop()
            every(guests, lambda g: g.save(folder))
            plane.save(folder)
            shutil.copy(self._run / PLAN, folder / PLAN)
            plane.start()
            every(guests, Guest.thaw)
            every(guests, Guest.set_clock)

    def _load(self, folder: Path) -> None:
        with step("wake the machines and etcd"):
            if self._run.exists():
                shutil.rmtree(self._run)
            self._run.mkdir(parents=True)
            shutil.copy(folder / PLAN, self._run / PLAN)
            guests, plane = self.guests, self.control_plane
            payload = self.plan.part("payload") / "payload.img"
            for guest in guests:
                guest.take_disks(folder)
                memory = folder / f"{guest.machine.name}.memory"
                guest.start(payload if guest.machine.role == "node" else None, memory)
            plane.load(folder)
            plane.start()
            every(guests, Guest.wait_restored)
            every(guests, Guest.thaw)
            every(guests, Guest.set_clock)
            nodes = [g for g in guests if g.machine.role == "node"]
            _wait_nodes(plane, nodes, patience=120, since=time.time())
        (self._run / FINISHED).touch()

    # What a person or a test needs ---------------------------------------------------------------

    def inventory(self) -> str:
        """An Ansible inventory in YAML: how to reach each machine, in the collection's default groups."""
        groups: dict[str, dict[str, Any]] = {"nfs_servers": {"hosts": {}}, "nfs_clients": {"hosts": {}}}
        for guest in self.guests:
            group = "nfs_servers" if guest.machine.role == "server" else "nfs_clients"
            groups[group]["hosts"][guest.machine.name] = {
                "ansible_host": "127.0.0.1",
                "ansible_port": guest.wiring.ssh_port,
                "ansible_user": "root",
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_ssh_common_args": " ".join(guest.ssh_options),
                "lab_address": guest.machine.address,
            }
        kubeconfig = str(self.control_plane.kubeconfig)
        # Emulated machines on a busy computer may need minutes for the start of a pod, and half a minute for a mount.
        patience = {"k8s_storage_timeout": 900, "verify_timeout": 900, "nfs_client_mount_timeout": 300}
        return yaml.safe_dump({"all": {"vars": {"storage_kubeconfig": kubeconfig, **patience}, "children": groups}})

    def status(self) -> str:
        if not (self._run / PLAN).exists():
            return "no lab"
        plan = self.plan
        lines = [f"{'up' if self.ready(plan.options) else 'not complete'}: {json.dumps(vars(plan.options))}"]
        for process in self.control_plane.processes:
            lines.append(f"{process.name:24} {'runs' if process.pid else 'ended'}")
        for guest in self.guests:
            state = guest.run_state if guest.process.pid else "ended"
            address = f"{guest.machine.address}  ssh port {guest.wiring.ssh_port}"
            lines.append(f"{guest.machine.name:24} {state}  {address}")
        return "\n".join([*lines, *(f"snapshot {name}" for name in _names(self.snapshots))])


def _wait_nodes(plane: ControlPlane, nodes: list[Guest], patience: float, since: float = 0) -> None:
    deadline = time.monotonic() + patience
    for guest in nodes:
        while not plane.node_ready(guest.machine.name, since):
            _patience(deadline, f"{guest.machine.name} is not Ready")


def _patience(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise LabError(complaint)
    time.sleep(0.5)


def _checked(name: str) -> str:
    if not name.isidentifier() or not name.islower():
        raise LabError(f"snapshot name {name!r}: use lower-case letters, digits and _")
    return name
