# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of exports that a user asks for: checked as a whole, and written as a file of exports(5).

Stricter than exportfs on purpose: what it would take and then do something unexpected with is refused here.
"""

from __future__ import annotations

import functools
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _export_clients, _export_options, _exports
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning

HEADER = "# Managed by clusterkit.storage.nfs_exports: changes made here will be overwritten.\n"

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_WILDCARD = re.compile(r"[A-Za-z0-9_.*?\[\]!^-]+")
_NETGROUP = re.compile(r"@[A-Za-z0-9_.-]+")
_NUMBERS_AND_DOTS = re.compile(r"[0-9.]+")
_UUID = re.compile(r"[0-9A-Fa-f:.-]+")
_LOCATION = re.compile(r"(/[^@:]*)@[^@:+/]+(\+[^@:+/]+)*")


@dataclass(frozen=True)
class Client:
    host: str
    options: tuple[str, ...]
    meaning: Meaning
    label: str  # its place in the list, for messages


@dataclass(frozen=True)
class Export:
    path: str
    clients: tuple[Client, ...]
    comment: str
    label: str


def read_list(
    items: Sequence[Mapping[str, Any]], *, allow_world: bool, dialect: Dialect
) -> tuple[list[Export], list[str]]:
    """Return the exports of a list, and all that is wrong with them."""
    problems: list[str] = []
    exports = []
    for number, item in enumerate(items):
        label = f"exports[{number}]"
        problems += [f"{label}.path: {problem}" for problem in path_problems(item["path"])]
        if not item["clients"]:
            problems.append(f"{label}.clients: names nobody; an export needs a client")
        common = split_options(item.get("options") or [])
        wrong = option_problems(common, dialect)
        problems += [f"{label}.options: {problem}" for problem in wrong]
        clients = []
        for position, given in enumerate(item["clients"]):
            client_label = f"{label}.clients[{position}]"
            host, own = given["host"].strip(), split_options(given.get("options") or [])
            host_wrong = host_problem(host, allow_world=allow_world)
            if host_wrong is not None:
                problems.append(f"{client_label}.host: {host_wrong}")
            own_wrong = option_problems(own, dialect)
            options = _together(common, own)
            meant, together_wrong = _export_options.read_options(",".join(options), dialect)
            if together_wrong is not None and not wrong and not own_wrong:
                own_wrong = [f"{together_wrong} (together with {label}.options)"]
            problems += [f"{client_label}.options: {problem}" for problem in own_wrong]
            clients.append(Client(host, tuple(options), meant, client_label))
        exports.append(Export(item["path"], tuple(clients), item.get("comment") or "", label))
    problems += _fsid_problems(exports)
    if not problems:
        problems += _writing_problems(exports, dialect)
    return exports, problems


def split_options(options: str | Sequence[str]) -> list[str]:
    """Return single options: a string, or an element of a list, may hold several, separated by commas."""
    if isinstance(options, str):
        options = [options]
    return [word.strip() for element in options for word in element.split(",")]


def meaning(export: Mapping[str, Any], client: Mapping[str, Any]) -> Meaning:
    """Return what an export of a list means for one of its clients."""
    options = _together(split_options(export.get("options") or []), split_options(client.get("options") or []))
    return _export_options.read_options(",".join(options))[0]


# --- one value ---------------------------------------------------------------------------------------------


def path_problems(path: str) -> list[str]:
    if not path.startswith("/"):
        return [f'"{path}" is not an absolute path']
    problems = []
    if ".." in path.split("/"):
        problems.append(f'"{path}" contains ".."')
    else:
        plain = "/" + os.path.normpath(path).lstrip("/")
        if plain != path:
            problems.append(f'"{path}" is not in its plain form; write "{plain}"')
    if re.search(r"[\x00-\x1f\x7f\\]", path):
        problems.append(f"{path!r} contains a backslash or a control character")
    if len(path.encode("utf-8", "surrogateescape")) > _exports.MAX_PATH:
        problems.append(f"the path is longer than {_exports.MAX_PATH} bytes")
    return problems


def host_problem(host: str, *, allow_world: bool) -> str | None:
    """Return what is wrong with a client, None when nothing is."""
    if re.search(r"[(){},\"'#\s\\]", host):
        if re.search(r"[()]", host):
            return f'"{host}": options have a key of their own, options'
        return f'"{host}" is not one client; a list has one element for each'
    if _export_clients.matches_everybody(host):
        if allow_world:
            return None
        return f'"{host}" lets in everybody; this needs allow_world: true (role: nfs_server_allow_world: true)'
    kind = _export_clients.client_kind(host)
    if kind == "gss":
        return f'"{host}" is obsolete; name the client, and use the option sec=krb5'
    if kind == "network":
        return _network_problem(host)
    if kind == "netgroup":
        return None if _NETGROUP.fullmatch(host) else f'"{host}" is not a netgroup'
    if kind == "wildcard":
        return _wildcard_problem(host)
    if _export_clients.is_address(host):
        return None
    if _NUMBERS_AND_DOTS.fullmatch(host):
        return f'"{host}" is not an IP address'
    if not _NAME.fullmatch(host) or ".." in host:
        return f'"{host}" is neither a host name, an address, a network, a wildcard nor a netgroup'
    return None


def _network_problem(host: str) -> str | None:
    problem = _export_clients.network_problem(host)
    if problem is not None:
        return f'"{host}": {problem}'
    mask = host.partition("/")[2]
    if "." in mask:
        bits = "".join(f"{int(part):08b}" for part in mask.split("."))
        return f'"{host}": the netmask has holes' if "01" in bits else None
    if not mask.isdigit():
        return f'"{host}": "{mask}" is not a prefix length'
    return None


def _wildcard_problem(host: str) -> str | None:
    if host.startswith("[") and _export_clients.is_address(host.strip("[]").partition("]")[0]):
        return f'"{host}": IPv6 addresses stand without brackets here'
    if re.fullmatch(r"[0-9.*?]+(/[0-9.]+)?", host):
        return f'"{host}": wildcards match names, not addresses; write a network such as 192.0.2.0/24'
    if not _WILDCARD.fullmatch(host) or host.count("[") != host.count("]"):
        return f'"{host}" is not a wildcard of exports(5)'
    return None


def option_problems(options: Sequence[str], dialect: Dialect) -> list[str]:
    """Return all that is wrong with a client's options."""
    return list(_option_problems(tuple(options), dialect))


@functools.lru_cache(maxsize=1024)
def _option_problems(options: tuple[str, ...], dialect: Dialect) -> list[str]:
    problems = []
    for option in options:
        _meaning, problem = _export_options.read_options(option, dialect)
        if not option:
            problem = "there is an empty option"
        problem = problem or _value_problem(option)
        if problem is not None:
            problems.append(problem)
    return problems or _contradictions(options)


def _value_problem(option: str) -> str | None:
    """Return why a value that exportfs takes is not what it looks like."""
    name, _separator, value = option.partition("=")
    if re.search(r"[\x00-\x20\x7f\"#\\()]", option):
        return f"{option!r} contains a blank or another character that exports(5) cannot hold there"
    if name in _export_options.OBSOLETE_OPTIONS:
        return f'"{name}" is obsolete and makes exportfs crash'
    if name in ("anonuid", "anongid") and not 0 <= int(value) < 2**32 - 1 and int(value) != -2:
        return f'"{option}" is not an id from 0 to {2**32 - 2}'
    if name == "fsid" and value != "root":
        if re.fullmatch("[0-9]+", value):
            if len(value) > 1 and value.startswith("0"):
                return f'"{option}" is read as octal; write the number without leading zeros'
            return None if int(value) < 2**32 else f'"{option}" is not a number from 0 to {2**32 - 1}'
        if not _UUID.fullmatch(value) or not _export_options.is_uuid(value):
            return f'"{option}" is neither a number, nor "root", nor a UUID'
    if name in ("mountpoint", "mp") and value:
        wrong = path_problems(value)
        return f'"{option}": {wrong[0]}' if wrong else None
    if name in ("refer", "replicas") and not all(_LOCATION.fullmatch(part) for part in value.split(":")):
        return f'"{option}" is not of the form {name}=/path@host[+host][:/path@host[+host]]'
    return None


def _together(common: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return an export's options and, behind them, a client's, without what the client says otherwise."""
    if not any(option.startswith("sec=") for option in (*common, *own)):
        said = {_subject(option) for option in own}
        common = [option for option in common if _subject(option) not in said]
    # What an option holds for depends on the sec= before it: then all is kept, and the last one counts.
    return [*common, *own]


def _subject(option: str) -> str:
    """Return what an option is about: two of the same subject contradict or repeat each other."""
    flag = _export_options.FLAG_OPTIONS.get(option)
    name = option.partition("=")[0]
    return flag[0] if flag else {"mp": "mountpoint", "refer": "locations", "replicas": "locations"}.get(name, name)


def _contradictions(options: Sequence[str]) -> list[str]:
    """Return options of which only the last one would count."""
    problems = []
    seen: dict[str, str] = {}
    for option in options:
        name, _separator, value = option.partition("=")
        if name == "sec":
            # What stands behind sec= holds for its flavors only, so these may be said again.
            seen = {key: word for key, word in seen.items() if key not in _export_options.FLAVOR_FLAGS}
            continue
        if name == "xprtsec":
            continue
        flag = _export_options.FLAG_OPTIONS.get(option)
        key = _subject(option)
        said = str(flag[1]) if flag else f"{name}={value}" if key == "locations" else value
        if seen.setdefault(key, option) != option and not _same(key, seen[key], said):
            problems.append(f'"{option}" contradicts "{seen[key]}"')
    return problems


def _same(key: str, before: str, said: str) -> bool:
    """Tell whether two spellings say the same (secure_locks and auth_nlm, mp= and mountpoint=, fsid=0 and root)."""
    flag = _export_options.FLAG_OPTIONS.get(before)
    if flag is not None:
        return str(flag[1]) == said
    value = before.partition("=")[2]
    return value == said or (key == "fsid" and {value, said} == {"0", "root"})


# --- the list as a whole -----------------------------------------------------------------------------------


def _fsid_problems(exports: Sequence[Export]) -> list[str]:
    """Return file system ids that would mean two directories: clients would get the files of the wrong one."""
    problems = []
    owners: dict[str, tuple[str, str]] = {}
    for export in exports:
        for client in export.clients:
            for fsid in fsids(client.meaning):
                path, label = owners.setdefault(fsid, (export.path, client.label))
                if path != export.path:
                    problems.append(f"{client.label}.options: fsid={fsid} belongs to {path} already ({label})")
    return problems


def warnings(exports: Sequence[Export]) -> list[str]:
    """Return exports that NFSv4 clients cannot reach: where fsid=0 makes a pseudo-root, they see what is below it."""
    roots = {export.path for export in exports for client in export.clients if client.meaning.fsid == 0}
    if not roots:
        return []
    return [
        f"{export.label}: {export.path} does not lie below the pseudo-root {' or '.join(sorted(roots))} (fsid=0): "
        "clients of NFSv4 cannot see it; bind-mount it there, and export that"
        for export in exports
        if not any(export.path == root or export.path.startswith(root.rstrip("/") + "/") for root in roots)
    ]


def fsids(meaning: Meaning) -> list[str]:
    ids = [] if meaning.fsid is None else [str(meaning.fsid)]
    return ids if meaning.uuid is None else [*ids, re.sub("[^0-9a-f]", "", meaning.uuid.lower())]


def _writing_problems(exports: Sequence[Export], dialect: Dialect) -> list[str]:
    """Return exports that would not be read back as they are meant: the proof that the file is right."""
    if not _misread(exports, dialect):
        return []
    return [
        f"{export.label}: cannot be written to an exports file: {problem}"
        for export in exports
        for problem in [_misread([export], dialect)]
        if problem
    ]


def _misread(exports: Sequence[Export], dialect: Dialect) -> str | None:
    """Return why exports would be read as something else, None when they would not."""
    read = _exports.parse("".join(map(_format, exports)), dialect)
    meant = [(export.path, client.host or "*", client.meaning) for export in exports for client in export.clients]
    if read.problems:
        return "; ".join(problem.text for problem in read.problems)
    if [(entry.path, entry.host, entry.meaning) for entry in read.entries] != meant:
        return "it would be read as something else"
    return None


def _format(export: Export) -> str:
    lines = [f"# {line}".rstrip() for line in re.split(r"[\x00-\x1f\x7f]+", export.comment.strip()) if line]
    clients = []
    for client in export.clients:
        options = list(client.options) or ["ro"]
        if not any(option in ("subtree_check", "no_subtree_check") for option in options):
            # The default; nfs-utils before 2.8 complains about every export that does not say so.
            options.append("no_subtree_check")
        clients.append((client.host, options))
    return "\n".join([*lines, _exports.format_export(export.path, clients), ""])


def content(exports: Sequence[Export]) -> str:
    """Return the file that says what the list says."""
    return HEADER + "".join(f"\n{_format(export)}" if export.comment else _format(export) for export in exports)


def is_ours(text: str) -> bool:
    """Tell whether this module wrote a file."""
    return text.startswith(HEADER.partition(":")[0])
