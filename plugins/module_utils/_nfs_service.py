# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of an NFS server against its values in force: what differs, and what it takes to change it. Pure.

What restarts is decided by the values in force, never by a file: a file may be right and not be read yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HEADER = "# Managed by clusterkit.storage.nfs_service: changes made here will be overwritten.\n"
SERVER = "nfs-server.service"
STATD = "rpc-statd.service"
IDMAPD = "nfs-idmapd.service"
RPCBIND = "rpcbind.socket"
# What a server for NFSv4 only does not need (nfs.systemd(7), "rpcbind").
ONLY_VERSION_3 = ("rpcbind.service", RPCBIND, STATD, "rpc-statd-notify.service")
VERSIONS = ("3", "4.0", "4.1", "4.2")
NFS_PORT, RPCBIND_PORT = 2049, 111
PORTS = ("nfs", "mountd", "statd", "lockd")
# Names of RPC programs: rpc(5).
PROGRAMS = {"mountd": 100005, "statd": 100024, "lockd": 100021}

MOST_THREADS = 256


@dataclass(frozen=True)
class Settings:
    """What is asked for; None and empty leave a thing as the distribution has it."""

    threads: int
    versions: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    grace_time: int | None = None
    lease_time: int | None = None
    idmap_domain: str | None = None

    @property
    def only_version_4(self) -> bool:
        return bool(self.versions) and "3" not in self.versions


@dataclass(frozen=True)
class Unit:
    load: str = "not-found"  # loaded, masked, not-found
    active: str = "inactive"
    enabled: str = ""


@dataclass(frozen=True)
class State:
    """What is in force. None: not known, or not there because no server runs."""

    units: Mapping[str, Unit]
    threads: int = 0  # 0: no server runs
    versions: tuple[str, ...] | None = None
    ports: Mapping[str, frozenset[int]] = field(default_factory=dict)
    grace_time: int | None = None
    lease_time: int | None = None
    idmap_domain: str | None = None
    clients: int = 0  # NFSv4 clients with state, or connections
    version_3_mounts: int = 0  # of this host itself, which need statd
    files: Mapping[str, str | None] = field(default_factory=dict)

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit())

    @property
    def runs(self) -> bool:
        return self.threads > 0


@dataclass
class Plan:
    """Steps in the order in which they are done."""

    files: dict[str, str | None] = field(default_factory=dict)  # path: new content
    unmask: list[str] = field(default_factory=list)
    restart_helpers: list[str] = field(default_factory=list)
    why_restart: list[str] = field(default_factory=list)
    start: bool = False
    enable: bool = False
    threads: int | None = None  # to be changed while the server runs
    mask: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """Return in words what has to be done."""
        words = [f"write {path}" if content is not None else f"remove {path}" for path, content in self.files.items()]
        words += [f"unmask {name}" for name in self.unmask]
        words += [f"restart {name}" for name in self.restart_helpers]
        words += [f"restart {SERVER}: {reason}" for reason in self.why_restart]
        words += [f"start {SERVER}"] if self.start else []
        words += [f"enable {SERVER}"] if self.enable else []
        words += [f"run {self.threads} threads"] if self.threads is not None else []
        return words + [f"stop and mask {name}" for name in self.mask]


def automatic_threads(processors: int, memory: int) -> int:
    """Return a number of threads: 8 for each processor, at least 16 (the default of nfs-utils 2.8).

    A thread keeps buffers of about 1 MiB, so no more than one for each 16 MiB of memory (bytes), and never more
    than 256: then disks are what one waits for.
    """
    by_memory = max(8, memory // (16 * 2**20))
    return min(max(16, 8 * processors), by_memory, MOST_THREADS)


def read_settings(
    *,
    threads: str,
    versions: Sequence[str],
    ports: Mapping[str, int | None],
    grace_time: int | None,
    lease_time: int | None,
    idmap_domain: str | None,
    automatic: int,
) -> tuple[Settings, list[str]]:
    """Return the settings that a user asks for, and all that is wrong with them."""
    problems = []
    number = automatic
    if threads != "auto":
        if not threads.isdigit() or not 1 <= int(threads) <= 65535:
            problems.append(f'threads: "{threads}" is neither "auto" nor a number from 1 to 65535')
        else:
            number = int(threads)
    given = {name: port for name, port in ports.items() if port is not None}
    for name, port in given.items():
        if not 1 <= port <= 65535:
            problems.append(f"ports.{name}: {port} is not a port from 1 to 65535")
        elif port == RPCBIND_PORT or list(given.values()).count(port) > 1:
            problems.append(f"ports.{name}: {port} is taken by another of the server's programs")
    if versions and "3" not in versions:
        wrong = sorted(set(given) - {"nfs"})
        problems += [f"ports.{name}: only NFSv3 uses this port, and it is not among the versions" for name in wrong]
    for key, seconds in (("grace_time", grace_time), ("lease_time", lease_time)):
        # Limits of the kernel: write_leasetime and write_gracetime in fs/nfsd/nfsctl.c.
        if seconds is not None and not 10 <= seconds <= 3600:
            problems.append(f"{key}: {seconds} is not a number of seconds from 10 to 3600")
    if grace_time is not None and lease_time is not None and grace_time < lease_time:
        problems.append(
            f"grace_time: {grace_time} is shorter than lease_time {lease_time}; "
            "clients could lose locks after a restart"
        )
    if idmap_domain is not None and (not idmap_domain or any(c.isspace() or c in '"#;[]=' for c in idmap_domain)):
        problems.append(f'idmap_domain: "{idmap_domain}" is not a domain name')
    return Settings(number, tuple(sorted(set(versions))), given, grace_time, lease_time, idmap_domain), problems


def nfs_conf(settings: Settings) -> str:
    """Return the file for /etc/nfs.conf.d that says what the settings say."""
    nfsd: dict[str, object] = {"threads": settings.threads}
    if settings.versions:
        nfsd["vers3"] = _flag("3" in settings.versions)
        nfsd["vers4"] = _flag(any(version != "3" for version in settings.versions))
        nfsd.update({f"vers{version}": _flag(version in settings.versions) for version in VERSIONS[1:]})
    if "nfs" in settings.ports:
        nfsd["port"] = settings.ports["nfs"]
    if settings.grace_time is not None:
        nfsd["grace-time"] = settings.grace_time
    if settings.lease_time is not None:
        nfsd["lease-time"] = settings.lease_time
    sections: dict[str, dict[str, object]] = {"nfsd": nfsd}
    for name in ("mountd", "statd", "lockd"):
        if name in settings.ports:
            sections[name] = {"port": settings.ports[name]}
    if "lockd" in settings.ports:
        sections["lockd"]["udp-port"] = settings.ports["lockd"]
    return HEADER + "".join(
        f"\n[{section}]\n" + "".join(f"{key}={value}\n" for key, value in values.items())
        for section, values in sections.items()
    )


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def idmapd_conf(settings: Settings) -> str | None:
    if settings.idmap_domain is None:
        return None
    return f"{HEADER}\n[General]\nDomain = {settings.idmap_domain}\n"


def make_plan(settings: Settings, found: State, paths: tuple[str, str], *, allow_restart: bool) -> Plan:
    """Compare; `paths` are those of our files in nfs.conf.d and idmapd.conf.d."""
    plan = Plan()
    for path, content in zip(paths, (nfs_conf(settings), idmapd_conf(settings))):
        if found.files.get(path) != content:
            plan.files[path] = content
    _plan_units(settings, found, plan)
    differs = differences(settings, found)
    if not found.runs or found.unit(SERVER).active not in ("active", "activating"):
        plan.start = True
    else:
        plan.why_restart = [differs[name] for name in _NEED_RESTART if name in differs]
        if "threads" in differs and not plan.why_restart:
            plan.threads = settings.threads
    if "statd" in differs or "lockd" in differs:
        plan.restart_helpers.append(STATD)  # which tells lockd its ports, too: rpc.statd(8)
    if "idmap_domain" in differs:
        plan.restart_helpers.append(IDMAPD)
    plan.enable = found.unit(SERVER).enabled not in ("enabled", "static")
    if plan.why_restart and found.clients and not allow_restart:
        stall = settings.grace_time or found.grace_time or 90
        users = f"{found.clients} clients use" if found.clients > 1 else "a client uses"
        plan.problems.append(
            f"{'; '.join(plan.why_restart)}: this needs a restart of the server, which {users}, "
            f"and a restart stalls opens and locks of NFSv4 for the grace period of {stall} seconds; "
            "say allow_restart: true (role: nfs_server_allow_restart: true) when that is acceptable"
        )
    return plan


# mountd among them: nfs-server requires its unit, and systemd restarts what requires a unit along with it.
_NEED_RESTART = ("versions", "nfs", "mountd", "lockd", "grace_time", "lease_time")


def _plan_units(settings: Settings, found: State, plan: Plan) -> None:
    if settings.only_version_4:
        plan.mask = [
            name
            for name in ONLY_VERSION_3
            if found.unit(name).load != "masked" or found.unit(name).active in ("active", "activating")
        ]
        if plan.mask and found.version_3_mounts:
            plan.problems.append(
                f"versions: without NFSv3, rpcbind and statd are switched off, and {found.version_3_mounts} NFSv3 "
                "mounts of this host itself need them"
            )
    elif "3" in settings.versions:
        plan.unmask = [name for name in ONLY_VERSION_3 if found.unit(name).load == "masked"]


def differences(settings: Settings, found: State) -> dict[str, str]:
    """Return the settings that are not in force, with words for each. Only of a server that runs."""
    differs: dict[str, str] = {}
    if not found.runs:
        return differs
    if settings.threads != found.threads:
        differs["threads"] = f"{settings.threads} threads wanted, {found.threads} in force"
    if settings.versions and found.versions is not None and set(settings.versions) != set(found.versions):
        differs["versions"] = (
            f"versions {', '.join(settings.versions)} wanted, {', '.join(found.versions) or 'none'} in force"
        )
    for name, port in settings.ports.items():
        there = found.ports.get(name)
        if there is not None and there != {port}:
            shown = ", ".join(map(str, sorted(there))) or "none"
            differs[name] = f"port {port} of {name} wanted, {shown} in force"
    for key in ("grace_time", "lease_time"):
        wanted, there_now = getattr(settings, key), getattr(found, key)
        if wanted is not None and there_now is not None and wanted != there_now:
            differs[key] = f"{key} {wanted} wanted, {there_now} in force"
    if settings.idmap_domain is not None and found.idmap_domain not in (None, settings.idmap_domain):
        differs["idmap_domain"] = f"idmap domain {settings.idmap_domain} wanted, {found.idmap_domain} in force"
    return differs


def firewall_ports(settings: Settings, found: State) -> tuple[list[str], list[str]]:
    """Return what a firewall has to let in, as PORT/PROTOCOL, and what keeps that from being known."""
    nfs = settings.ports.get("nfs", NFS_PORT)
    versions = settings.versions or found.versions or VERSIONS
    if "3" not in versions:
        return [f"{nfs}/tcp"], []
    missing = [name for name in ("mountd", "statd", "lockd") if name not in settings.ports]
    problems = [
        f"ports.{name}: a firewall needs a fixed port for NFSv3; give one, or leave 3 out of versions"
        for name in missing
    ]
    numbers = [RPCBIND_PORT, *(settings.ports[name] for name in ("mountd", "statd", "lockd") if name in settings.ports)]
    return [f"{nfs}/tcp", *(f"{port}/{protocol}" for port in numbers for protocol in ("tcp", "udp"))], problems
