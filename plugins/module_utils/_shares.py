# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers must offer so that volumes and provisioners work: directories, exports, and who serves what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _addresses, _export_list, _mount_options
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers

Tell = Callable[[str, str, str], None]  # takes host, place and message

# Directories of the operating system: making one of them writable for everybody opens the machine.
_SYSTEM_TOP = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var"
_SYSTEM = {"/", *(f"/{name}" for name in _SYSTEM_TOP.split())}
_SYSTEM_TREES = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr")


@dataclass
class Server:
    """A host that serves files, with what its operator listed for it."""

    name: str
    addresses: list[str]
    directories: list[dict[str, Any]] = field(default_factory=list)
    exports: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """A directory on a server that a volume or a provisioner of ours lies in."""

    kind: str  # volume, provisioner or class
    name: str
    place: str
    server: str
    path: str
    mount_options: tuple[str, ...]
    writes: bool

    @property
    def what(self) -> str:
        return f'{self.kind} "{self.name}"'

    @property
    def unreserved_port(self) -> bool:
        return _mount_options.uses_unreserved_port(self.mount_options)


@dataclass(frozen=True)
class Needed:
    """A use, located on one of our hosts."""

    use: Use
    path: str  # as the host itself sees it


@dataclass(frozen=True)
class Policy:
    """To whom derived exports go; nobody by default."""

    api_host: str
    clients: Sequence[str]
    options: Sequence[str]


def locate(
    uses: Iterable[Use], servers: Sequence[Server], listed: Sequence[Mapping[str, Any]], api_host: str, report: Any
) -> dict[str, list[Needed]]:
    """Find the host behind each use; what is not ours or not clear is said."""
    needs: dict[str, list[Needed]] = {server.name: [] for server in servers}
    for use in uses:
        place = f"{use.place}.server"
        found = _hosts_behind(use.server, servers, listed)
        if len(found) > 1:
            report.problem(
                api_host,
                place,
                f'"{use.server}" is an address of {" and of ".join(sorted(found))}; '
                "say in storage_servers which is meant",
            )
        elif not found:
            report.note(
                api_host,
                place,
                f'"{use.server}" is no name or address of a host in the group of servers; directory and export '
                f"{use.path} of {use.what} are left to whoever runs it",
            )
        elif found[0] in needs:
            needs[found[0]].append(Needed(use, _server_path(use, found[0], listed)))
    return needs


def _hosts_behind(server: str, servers: Sequence[Server], listed: Sequence[Mapping[str, Any]]) -> list[str]:
    said = _addresses.owners(server, {one["host"]: [one["host"], one["name"], *one["addresses"]] for one in listed})
    if said:
        return said
    by_name = [one.name for one in servers if _addresses.normal(one.name) == _addresses.normal(server)]
    return by_name or _addresses.owners(server, {one.name: one.addresses for one in servers})


def _server_path(use: Use, host: str, listed: Sequence[Mapping[str, Any]]) -> str:
    """Clients may see a directory under another path than the server: pseudo-root, bind mount."""
    shares = [share for one in listed if one["host"] == host for share in one["shares"]]
    for share in sorted(shares, key=lambda share: len(share["client_path"]), reverse=True):
        if covers(share["client_path"], use.path):
            below = use.path[len(share["client_path"].rstrip("/")) :]
            return str(share["server_path"].rstrip("/") + below) or "/"
    return use.path


def complete(server: Server, needs: Sequence[Needed], policy: Policy, report: Any) -> Server:
    """The server's own lists, with what the needs ask for behind them."""
    done = Server(server.name, server.addresses, list(server.directories), list(server.exports))
    known = {_plain(one["path"]) for one in server.directories}
    for need in sorted(needs, key=lambda need: need.path):
        if need.path not in known:
            known.add(need.path)
            _add_directory(done, need, report)
        export = _covering(done.exports, need.path)
        if export is not None:
            if export in server.exports:
                _check_port(server, export, need, report)
        elif policy.clients:
            insecure = any(other.use.unreserved_port for other in needs if covers(need.path, other.path))
            done.exports.append(_export(need.path, policy, insecure))
        else:
            report.problem(
                policy.api_host,
                "site_export_clients",
                f"{need.use.what} ({need.use.place}) needs {need.path} of {server.name}, which no entry of its "
                "nfs_server_exports covers; say here who may mount it, or list the export",
            )
    return done


def _add_directory(done: Server, need: Needed, report: Any) -> None:
    if need.path in _SYSTEM or any(covers(tree, need.path) for tree in _SYSTEM_TREES):
        report.problem(
            done.name,
            "nfs_server_directories",
            f"{need.use.what} ({need.use.place}) lies in {need.path}, a directory of the operating system; name "
            "another one, or list this one here with the mode it should have",
        )
        return
    # A root that is squashed, and pods of any user, must be able to write; only this directory is touched.
    done.directories.append({"path": need.path, "owner": "root", "group": "root", "mode": "0777"})


def _covering(exports: Sequence[dict[str, Any]], path: str) -> dict[str, Any] | None:
    fitting = [one for one in exports if covers(one["path"], path)]
    return max(fitting, key=lambda one: len(_plain(one["path"])), default=None)


def _check_port(server: Server, export: dict[str, Any], need: Needed, report: Any) -> None:
    """The server refuses a client that comes from a port above 1023, unless it exports with `insecure`."""
    if not need.use.unreserved_port:
        return
    clients = export.get("clients") or []
    secure = [one["host"] for one in clients if not _is_insecure(_export_list.meaning(export, one))]
    if secure:
        # Which client a node is, is known to the server alone: only where all are secure no mount can succeed.
        say = report.problem if len(secure) == len(clients) else report.note
        say(
            server.name,
            "nfs_server_exports",
            f"{need.use.what} ({need.use.place}) is mounted with noresvport, but export {export['path']} is secure "
            f'for {", ".join(secure)}: the server refuses such mounts; add "insecure" to its options, or take '
            "noresvport away",
        )


def _is_insecure(meaning: Meaning) -> bool:
    return all("insecure" in flavor.flags for flavor in meaning.flavors)


def _export(path: str, policy: Policy, insecure: bool) -> dict[str, Any]:
    options = [*policy.options]
    if insecure and "insecure" not in options:
        options = [option for option in options if option != "secure"] + ["insecure"]
    return {"path": path, "clients": [{"host": client, "options": options} for client in policy.clients]}


def storage_server(server: Server) -> dict[str, Any]:
    """The entry of storage_servers for a host: under which paths clients see its exports."""
    roots = [_plain(one["path"]) for one in server.exports if _is_pseudo_root(one)]
    return _entry(server.name, server.addresses, [_plain(one["path"]) for one in server.exports], roots)


def found_servers(told: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries of storage_servers, by what hosts tell of themselves: C(address, facts, exports), as in effect."""
    found = []
    for name, one in told.items():
        if one.get("exports") is None:
            continue
        paths = list(dict.fromkeys(_plain(export["path"]) for export in one["exports"]))
        roots = {_plain(export["path"]) for export in one["exports"] if "fsid=0" in export["options"]}
        facts = {key[8:]: value for key, value in (one.get("facts") or {}).items() if key.startswith("ansible_")}
        addresses = _addresses.of_host(name, one.get("address") or "", facts)
        found.append(_entry(name, addresses, paths, sorted(roots)))
    return found


def _entry(name: str, addresses: Sequence[str], paths: Sequence[str], roots: Sequence[str]) -> dict[str, Any]:
    shares = [{"server_path": path, "client_path": path} for path in paths]
    for root in roots:
        # NFSv4 clients may leave the path of the pseudo-root away, NFSv3 clients may not.
        shares += [
            {"server_path": share["server_path"], "client_path": share["server_path"][len(root) :] or "/"}
            for share in list(shares)
            if covers(root, share["server_path"]) and root != "/"
        ]
    return {"name": name, "host": name, "addresses": list(addresses), "shares": shares}


def _is_pseudo_root(export: Mapping[str, Any]) -> bool:
    return any(_export_list.meaning(export, one).fsid == 0 for one in export.get("clients") or [])


def probes(
    uses: Iterable[Use], needs: Mapping[str, Sequence[Needed]], servers: Sequence[Server]
) -> list[dict[str, Any]]:
    """What every node must be able to mount, each once, as targets of nfs_probe.

    A provisioner writes as root, and so does the probe. Who writes into a static volume is not known: the probe
    writes only where this collection made the directory open to all, and lists it where others may.
    """
    modes = {
        (server.name, _plain(one["path"])): str(one.get("mode") or "0755")
        for server in servers
        for one in server.directories
    }
    places = {need.use: (host, need.path) for host, found in needs.items() for need in found}
    targets: dict[tuple[str, str, tuple[str, ...]], bool] = {}
    for use in uses:
        mode = modes.get(places.get(use, ("", "")), "0777" if use in places else "")
        if use.kind == "volume" and mode[-1:] not in ("7", "5"):
            continue
        key = (use.server, use.path, use.mount_options)
        reads_only = not use.writes or (use.kind == "volume" and mode[-1:] != "7")
        targets[key] = targets.get(key, True) and reads_only
    return [
        {"server": server, "path": path, "options": list(options), "read_only": read_only}
        for (server, path, options), read_only in targets.items()
    ]


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"
