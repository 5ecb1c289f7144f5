# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running NFS server: read what is in force, do a plan's steps, and look whether the kernel agreed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_host,
    _files,
    _firewall,
    _mounts,
    _nfs_service,
    _process,
    _server_info,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._host_module import HostError, reading, refused
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_service import Plan, Settings, State, Unit

UNITS = (_nfs_service.SERVER, _nfs_service.IDMAPD, *_nfs_service.ONLY_VERSION_3)
ESTABLISHED = "01"  # state of a connection in /proc/net/tcp: include/net/tcp_states.h


@dataclass(frozen=True)
class Places:
    # Files of a folder are read in the order of their names, and the last one wins: Debian has a local.conf there.
    nfs_conf: str = "/etc/nfs.conf.d/zz-clusterkit.conf"
    idmapd_conf: str = "/etc/idmapd.conf.d/zz-clusterkit.conf"
    nfsd: str = "/proc/fs/nfsd"
    proc: str = "/proc"
    path: str = _export_host.SYSTEM_PATH
    firewall: _firewall.Places = field(default_factory=_firewall.Places)


@dataclass(frozen=True)
class Request:
    threads: str = "auto"
    versions: Sequence[str] = ()
    ports: Mapping[str, int | None] | None = None
    grace_time: int | None = None
    lease_time: int | None = None
    idmap_domain: str | None = None
    allow_restart: bool = False
    firewall: str = "none"
    timeout: float = 120.0
    check_mode: bool = False


@dataclass
class Outcome:
    changed: bool = False
    steps: list[str] = field(default_factory=list)
    restarted: bool = False
    threads: int = 0
    versions: list[str] = field(default_factory=list)
    ports: dict[str, list[int]] = field(default_factory=dict)
    grace_time: int | None = None
    lease_time: int | None = None
    idmap_domain: str | None = None
    clients: int = 0
    firewall_ports: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


def ensure_service(request: Request, places: Places) -> Outcome:
    """Do what the request says. Raises HostError."""
    return _Run(request, places).do()


class _Run:
    def __init__(self, request: Request, places: Places) -> None:
        self.request = request
        self.places = places
        self.outcome = Outcome()

    def do(self) -> Outcome:
        request, outcome = self.request, self.outcome
        settings, problems = _nfs_service.read_settings(
            threads=request.threads,
            versions=request.versions,
            ports=request.ports or {},
            grace_time=request.grace_time,
            lease_time=request.lease_time,
            idmap_domain=request.idmap_domain,
            automatic=_nfs_service.automatic_threads(os.cpu_count() or 1, self._memory()),
        )
        if problems:
            raise refused(problems)
        with reading():
            found = self._state(settings)
        if found.unit(_nfs_service.SERVER).load == "masked":
            raise refused([f"{_nfs_service.SERVER} is masked; `systemctl unmask {_nfs_service.SERVER}` first"])
        if found.unit(_nfs_service.SERVER).load == "not-found":
            return self._predict_or_refuse(settings, found)
        plan = self._plan(settings, found)
        ports: list[str] = []
        firewall = None
        if request.firewall != "none":
            ports, port_problems = _nfs_service.firewall_ports(settings, found)
            firewall = _firewall.make(request.firewall, ports, places=self.places.firewall, run=self._command)
            plan.problems += port_problems + firewall.problems
            outcome.warnings += firewall.notes
        if plan.problems:
            raise refused(plan.problems, outcome.warnings)
        outcome.steps = plan.steps + (firewall.steps if firewall else [])
        outcome.changed = bool(outcome.steps)
        outcome.restarted = bool(plan.why_restart)
        outcome.diff = [
            {
                "before_header": path,
                "after_header": path,
                "before": found.files.get(path) or "",
                "after": content or "",
            }
            for path, content in plan.files.items()
        ] + (firewall.diff if firewall else [])
        if outcome.steps and not request.check_mode:
            try:
                self._apply(plan)
                if firewall is not None and firewall.steps:
                    firewall.apply()
            except OSError as error:
                raise self._failure([_files.complaint(error)]) from error
            found = self._state(settings)
            left = list(_nfs_service.differences(settings, found).values())
            left += self._plan(settings, found).steps if not left else []
            if not found.runs:
                left.insert(0, f"no nfsd thread runs; see `journalctl -u {_nfs_service.SERVER}`")
            if left:
                raise self._failure(left)
        self._report(found, ports)
        return outcome

    def _plan(self, settings: Settings, found: State) -> Plan:
        paths = (self.places.nfs_conf, self.places.idmapd_conf)
        return _nfs_service.make_plan(settings, found, paths, allow_restart=self.request.allow_restart)

    def _predict_or_refuse(self, settings: Settings, found: State) -> Outcome:
        missing = f"{_nfs_service.SERVER} is not installed here (package nfs-kernel-server or nfs-utils)"
        if not self.request.check_mode:
            raise refused([missing])
        self.outcome.warnings.append(f"{missing}: this is a prediction")
        self.outcome.steps = self._plan(settings, replace(found, clients=0)).steps
        self.outcome.changed = True
        return self.outcome

    def _failure(self, what: Sequence[str]) -> HostError:
        return HostError("the server does not do what the settings say: " + "; ".join(what), what, changed=True)

    # --- what is in force --------------------------------------------------------------------------------

    def _memory(self) -> int:
        text = _files.read_text(f"{self.places.proc}/meminfo") or ""
        match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
        return int(match.group(1)) * 1024 if match else 2**40

    def _state(self, settings: Settings) -> State:
        nfsd = self.places.nfsd
        threads, versions = _files.read_text(f"{nfsd}/threads"), _files.read_text(f"{nfsd}/versions")
        state = State(
            units=self._units(),
            threads=int(threads or 0),
            versions=None if versions is None else tuple(_server_info.parse_versions(versions)),
            grace_time=self._number("nfsv4gracetime"),
            lease_time=self._number("nfsv4leasetime"),
            idmap_domain=self._idmap_domain() if settings.idmap_domain is not None else None,
            files={path: _files.read_text(path) for path in (self.places.nfs_conf, self.places.idmapd_conf)},
        )
        if not state.runs:
            return state
        ports = {"nfs": _ports(_files.read_text(f"{nfsd}/portlist") or "")}
        if set(settings.ports) - {"nfs"}:
            ports.update(self._registered())
        return replace(
            state,
            ports=ports,
            clients=self._clients(ports["nfs"]),
            version_3_mounts=self._version_3_mounts(),
        )

    def _number(self, name: str) -> int | None:
        text = (_files.read_text(f"{self.places.nfsd}/{name}") or "").strip()
        return int(text) if text.isdigit() else None

    def _units(self) -> dict[str, Unit]:
        properties = "--property=Id,LoadState,ActiveState,UnitFileState"
        answer = self._command("systemctl", "show", properties, *UNITS)
        units = {}
        for block in answer.split("\n\n"):
            values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
            if "Id" in values:
                units[values["Id"]] = Unit(
                    values.get("LoadState", ""), values.get("ActiveState", ""), values.get("UnitFileState", "")
                )
        return units

    def _idmap_domain(self) -> str | None:
        program = shutil.which("nfsidmap", path=self.places.path)
        if program is None:
            return None
        finished = _process.run([program, "-d"], timeout=self.request.timeout)
        return finished.stdout.strip() or None

    def _registered(self) -> dict[str, frozenset[int]]:
        """Ask rpcbind for the ports of the programs of NFSv3."""
        program = shutil.which("rpcinfo", path=self.places.path)
        if program is None:
            return {}
        finished = _process.run([program, "-p", "127.0.0.1"], timeout=self.request.timeout)
        programs = _server_info.parse_rpcinfo(finished.stdout)
        return {
            name: frozenset(one["port"] for one in programs if one["program"] == number)
            for name, number in _nfs_service.PROGRAMS.items()
        }

    def _clients(self, ports: frozenset[int]) -> int:
        """Count who uses the server: NFSv4 clients that the kernel knows, or connections, whichever are more."""
        folder = Path(self.places.nfsd, "clients")
        known = len(list(folder.iterdir())) if folder.is_dir() else 0
        peers = set()
        for name in ("tcp", "tcp6"):
            for line in (_files.read_text(f"{self.places.proc}/net/{name}") or "").splitlines()[1:]:
                _slot, local, remote, state = line.split()[:4]
                if state == ESTABLISHED and int(local.rpartition(":")[2], 16) in ports:
                    peers.add(remote.rpartition(":")[0])
        return max(known, len(peers))

    def _version_3_mounts(self) -> int:
        mounts = _mounts.parse(_files.read_text(f"{self.places.proc}/self/mountinfo") or "")
        return sum(mount.is_nfs and "vers=3" in mount.super_options for mount in mounts)

    # --- steps -------------------------------------------------------------------------------------------

    def _apply(self, plan: Plan) -> None:
        for path, content in plan.files.items():
            if content is None:
                _files.remove_file(path)
            else:
                Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                _files.replace_file(path, content)
        if plan.unmask:
            self._command("systemctl", "unmask", *plan.unmask)
            self._command("systemctl", "start", _nfs_service.RPCBIND)
        for name in plan.restart_helpers:
            self._command("systemctl", "try-restart" if name == _nfs_service.IDMAPD else "restart", name)
        if _nfs_service.IDMAPD in plan.restart_helpers:
            self._command("nfsidmap", "-c")  # forget the names of the old domain
        if plan.enable:
            self._command("systemctl", "enable", _nfs_service.SERVER)
        if plan.why_restart:
            self._command("systemctl", "restart", _nfs_service.SERVER)
        elif plan.start:
            self._command("systemctl", "start", _nfs_service.SERVER)
        if plan.threads is not None:
            # The kernel takes it at once, without a restart: rpc.nfsd(8).
            Path(self.places.nfsd, "threads").write_text(f"{plan.threads}\n", encoding="ascii")
        if plan.mask:
            self._command("systemctl", "mask", "--now", *plan.mask)

    def _command(self, *argv: str, stdin: str | None = None) -> str:
        program = shutil.which(argv[0], path=self.places.path)
        if program is None:
            raise refused([f"{argv[0]} is not installed here"])
        finished = _process.run([program, *argv[1:]], timeout=self.request.timeout, stdin=stdin)
        if not finished.succeeded:
            raise self._failure([finished.complaint()])
        return finished.stdout

    # --- what to tell ------------------------------------------------------------------------------------

    def _report(self, found: State, ports: list[str]) -> None:
        outcome = self.outcome
        outcome.threads = found.threads
        outcome.versions = list(found.versions or ())
        outcome.ports = {name: sorted(numbers) for name, numbers in found.ports.items()}
        outcome.grace_time, outcome.lease_time = found.grace_time, found.lease_time
        outcome.idmap_domain, outcome.clients = found.idmap_domain, found.clients
        outcome.firewall_ports = ports


def _ports(text: str) -> frozenset[int]:
    """Return the ports of /proc/fs/nfsd/portlist: "tcp 2049" a line."""
    return frozenset(int(match) for match in re.findall(r"^\w+ (\d+)$", text, re.MULTILINE))
