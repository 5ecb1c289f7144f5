# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inputs of all hosts together: everything that is wrong, and what follows from one for the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _addresses,
    _charts,
    _cluster,
    _cluster_inputs,
    _cluster_live,
    _directories,
    _export_list,
    _export_options,
    _mount_input,
    _mount_options,
    _nfsmount_conf,
    _platforms,
    _shares,
    _verification_answers,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._argument_specs import Spec
from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import Cluster
from ansible_collections.clusterkit.storage.plugins.module_utils._report import Report
from ansible_collections.clusterkit.storage.plugins.module_utils._shares import Policy, Server, Use
from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean, nearest

ROLE_OF_GROUP = {"servers": "nfs_server", "nodes": "nfs_client"}
_EXPORTED = {"nfs_server_directories", "nfs_server_exports"}
_WRITES = {"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"}
_SITE_SPEC = Spec(
    {
        "site_export_clients": {"type": "list", "elements": "str", "default": []},
        "site_export_options": {
            "type": "list",
            "elements": "str",
            "default": ["rw", "sync", "no_subtree_check"],
        },
        "verify_image": {"type": "str", "default": "docker.io/library/busybox:1.36"},
        "verify_timeout": {"type": "int", "default": 300},
        "verify_classes": {"type": "list", "elements": "str", "default": []},
        "verify_deep": {"type": "bool", "default": False},
        "storage_kubeconfig": {"type": "str", "default": ""},
        "storage_context": {"type": "str", "default": ""},
        "storage_api_host": {"type": "str", "default": "localhost"},
        "storage_servers_group": {"type": "str", "default": "nfs_servers"},
        "storage_nodes_group": {"type": "str", "default": "nfs_clients"},
        "storage_servers": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "host": {"type": "str", "required": True},
                "addresses": {"type": "list", "elements": "str", "default": []},
                "shares": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "server_path": {"type": "str", "required": True},
                        "client_path": {"type": "str", "required": True},
                    },
                },
            },
        },
    }
)


def check(
    hosts: Sequence[Mapping[str, Any]],
    cluster: Mapping[str, Any],
    specs: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, str] | None = None,
    known_groups: Sequence[str] = (),
    removal: bool = False,
) -> dict[str, Any]:
    """Return problems, notes, and the completed inputs."""
    report = Report()
    api_host = cluster["host"]
    _check_groups(groups or {}, known_groups, partial(report.problem, api_host))
    by_role = {role: Spec(options) for role, options in specs.items()}
    checked: dict[str, dict[str, Any]] = {}
    # Where something is missing because it could not be read, nothing follows from its absence.
    unread = {host["name"] for host in hosts if host["error"]}
    for host in hosts:
        checked[host["name"]], missing = _check_host(host, by_role, report)
        if missing & _EXPORTED:
            unread.add(host["name"])
    wanted, site = _check_variables_of_cluster(cluster, by_role["k8s_storage"], report)
    _platforms.check_access(cluster, report)
    wanted.complete()
    judge = _cluster_live.removal if removal else _cluster_inputs.check
    found = judge(wanted, partial(report.problem, api_host), partial(report.note, api_host))
    servers = [_server(host, checked[host["name"]]) for host in hosts if "servers" in host["groups"]]
    uses = _uses(wanted)
    needs: dict[str, list[_shares.Needed]] = {}
    if (servers or site["storage_servers"]) and not removal:
        needs = _shares.locate(uses, servers, site["storage_servers"], api_host, report)
    policy = Policy(api_host, site["site_export_clients"], site["site_export_options"])
    _check_policy(policy, any(_allows_world(values) for values in checked.values()), report)
    complete = [
        _shares.complete(server, needs.get(server.name, []), policy, report)
        for server in servers
        if server.name not in unread
    ]
    classes = [] if removal else _classes_to_try(wanted, site["verify_classes"], partial(report.problem, api_host))
    return {
        "problems": [finding.as_dict() for finding in report.problems],
        "notes": [finding.as_dict() for finding in report.notes],
        "storage_servers": site["storage_servers"] or [_shares.storage_server(server) for server in complete],
        "servers": {server.name: {"directories": server.directories, "exports": server.exports} for server in complete},
        "shares": _shares.probes(uses, needs, servers),
        "uses": [
            {
                "kind": need.use.kind,
                "name": need.use.name,
                "place": need.use.place,
                "host": host,
                "path": need.path,
            }
            for host, found in needs.items()
            for need in found
        ],
        "cluster": {
            "provisioners": wanted.provisioners,
            "releases": [
                _charts.release(one, wanted.registry) for _index, one in wanted.installed if one["method"] == "helm"
            ],
            "classes": wanted.classes,
            "volumes": wanted.volumes,
            "claims": wanted.claims,
            "wanted": _is_wanted(wanted),
            "missing_namespaces": _missing_namespaces(wanted, cluster["namespaces"]),
            **found.as_dict(),
        },
        "verify": {
            "image": _cluster.rewritten(site["verify_image"], wanted.registry),
            "timeout": site["verify_timeout"],
            "classes": classes,
            "deep": site["verify_deep"],
            "uid": _verification_answers.UID,
        },
    }


def message(problems: Sequence[Mapping[str, str]]) -> str:
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"  {one['host']}: {one['variable']}: {one['message']}" for one in problems]
    return "\n".join([f"The inputs have {count}; nothing was changed.", *lines])


def _check_groups(groups: Mapping[str, str], known: Sequence[str], problem: Callable[[str, str], None]) -> None:
    for kind, group in groups.items():
        if group and group not in known:
            problem(f"storage_{kind}_group", f'the inventory has no group "{group}"{did_you_mean(group, known)}')


def _check_host(
    host: Mapping[str, Any], by_role: Mapping[str, Spec], report: Report
) -> tuple[dict[str, Any], set[str]]:
    """Return what could be read of the variables of its roles, and the names of those of which something could not."""
    name = host["name"]
    if host["error"]:
        report.problem(name, "ansible_host", f"cannot be used: {_platforms.first_line(host['error'])}")
    else:
        _platforms.check_python(name, host["facts"], report)
        _platforms.check_system(name, host["facts"], report)
    checked: dict[str, Any] = {}
    unread: set[str] = set()
    for group in host["groups"]:
        role = ROLE_OF_GROUP[group]
        if role in by_role:
            values, missing = _check_role(name, role, by_role[role], host["variables"], report)
            checked.update(values)
            unread |= missing
    _check_directories(name, checked, report)
    _check_exports(name, checked, report)
    _check_mounts(name, checked, report)
    return checked, unread


def _check_role(
    host: str, role: str, spec: Spec, variables: Mapping[str, Any], report: Report
) -> tuple[dict[str, Any], set[str]]:
    """Return what could be read of the variables, and the names of those of which something could not."""
    values, faults = spec.check({key: value for key, value in variables.items() if key in spec.names})
    for fault in faults:
        report.problem(host, fault.place, fault.words)
    for variable in variables:
        if variable in spec.names or not variable.startswith(role + "_"):
            continue
        meant = nearest(variable, spec.names)
        if meant and _is_typo(variable, meant):
            report.problem(host, variable, f'is not a variable of role {role}; did you mean "{meant}"?')
        else:
            report.note(host, variable, f"is not a variable of role {role} and has no effect on it")
    return _readable(host, values, [fault.place for fault in faults if fault.unusable], report)


def _readable(
    host: str, values: dict[str, Any], places: Sequence[str], report: Report
) -> tuple[dict[str, Any], set[str]]:
    """Leave out the entries of lists, or the whole variables, in which these places lie."""
    left_out: dict[str, set[int]] = {}
    unread = set()
    for place in places:
        entry = re.match(r"(\w+)\[(\d+)\]", place)
        if entry:
            left_out.setdefault(entry[1], set()).add(int(entry[2]))
        else:
            unread.add(place.partition(".")[0])
    values = {name: value for name, value in values.items() if name not in unread}
    for name, numbers in left_out.items():
        if name in values:
            kept = [number for number in range(len(values[name])) if number not in numbers]
            report.number(host, name, kept)
            values[name] = [values[name][number] for number in kept]
    return values, unread | set(left_out)


def _check_directories(host: str, variables: Mapping[str, Any], report: Report) -> None:
    for index, item in enumerate(variables.get("nfs_server_directories") or []):
        place = f"nfs_server_directories[{index}]"
        wrong = _directories.path_problem(item["path"])
        if wrong:
            report.problem(host, f"{place}.path", wrong)
        mode = _directories.read_mode(item["mode"])
        if isinstance(mode, str):
            report.problem(host, f"{place}.mode", mode)


def _check_exports(host: str, variables: Mapping[str, Any], report: Report) -> None:
    _given, problems = _export_list.read_list(
        variables.get("nfs_server_exports") or [], allow_world=_allows_world(variables), dialect=_export_options.NEWEST
    )
    for sentence in problems:
        place, _separator, words = sentence.partition(": ")
        report.problem(host, f"nfs_server_{place}", words)


def _allows_world(variables: Mapping[str, Any]) -> bool:
    # A value from the command line is text, and "false" is not empty.
    return bool(boolean(variables.get("nfs_server_allow_world", False), strict=False))


def _check_policy(policy: Policy, allow_world: bool, report: Report) -> None:
    for index, client in enumerate(policy.clients):
        wrong = _export_list.host_problem(client, allow_world=allow_world)
        if wrong:
            report.problem(policy.api_host, f"site_export_clients[{index}]", wrong)
    for wrong in _export_list.option_problems(list(policy.options), _export_options.NEWEST):
        report.problem(policy.api_host, "site_export_options", wrong)


def _check_mounts(host: str, variables: Mapping[str, Any], report: Report) -> None:
    mounts = variables.get("nfs_client_mounts") or []
    wanted, problems = _mount_input.read_input(mounts)
    for sentence in problems:
        place, _separator, words = sentence.partition(": ")
        report.problem(host, f"nfs_client_{place}", words)
    for index, item in enumerate(wanted):
        for note in _mount_options.notes(item.options):
            report.note(host, f"nfs_client_mounts[{index}].options", note)
    for sentence in _nfsmount_conf.read_defaults(variables.get("nfs_client_mount_defaults") or [])[1]:
        place, _separator, words = sentence.partition(": ")
        report.problem(host, f"nfs_client_{place}", words)


def _is_typo(word: str, meant: str) -> bool:
    """One letter too many, missing, wrong, or two exchanged: people have variables of their own with our prefix."""
    if sorted(word) == sorted(meant):
        return True
    short, long = sorted((word, meant), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((i for i, (one, other) in enumerate(zip(short, long)) if one != other), len(short))
    rest = long[start + 1 :]
    return short[start:] == rest or short[start + 1 :] == rest


def _check_variables_of_cluster(
    cluster: Mapping[str, Any], spec: Spec, report: Report
) -> tuple[Cluster, dict[str, Any]]:
    variables = cluster["variables"]
    values, unread = _check_role(cluster["host"], "k8s_storage", spec, variables, report)
    site, faults = _SITE_SPEC.check({key: value for key, value in variables.items() if key in _SITE_SPEC.names})
    for fault in faults:
        report.problem(cluster["host"], fault.place, fault.words)
    if faults:
        site = _SITE_SPEC.check({})[0]
    for variable in variables:
        meant = nearest(variable, _SITE_SPEC.names) if variable.startswith(("site_", "storage_")) else None
        if meant and meant != variable and _is_typo(variable, meant):
            report.problem(cluster["host"], variable, f'is not known; did you mean "{meant}"?')
    # A claim can only be judged by volumes and classes that could be read.
    judged = not unread & {"k8s_storage_volumes", "k8s_storage_classes"}
    return (
        Cluster(
            provisioners=values.get("k8s_storage_provisioners", []),
            classes=values.get("k8s_storage_classes", []),
            volumes=values.get("k8s_storage_volumes", []),
            claims=values.get("k8s_storage_claims", []) if judged else [],
            live_classes=list(cluster["storage_classes"]),
            live_volumes=list(cluster["volumes"]),
            live_claims=list(cluster["claims"]),
            controllers=list(cluster["controllers"]),
            provisioner_states=cluster["provisioner_states"],
            helm=cluster["helm"],
            registry=values.get("k8s_storage_image_registry") or "",
            allow_take_default=bool(values.get("k8s_storage_allow_take_default")),
            allow_delete_released=bool(values.get("k8s_storage_allow_delete_released")),
        ),
        site,
    )


def _classes_to_try(wanted: Cluster, named: Sequence[str], problem: Callable[[str, str], None]) -> list[str]:
    """The names of the classes whose volumes a provisioner of ours makes; with C(named) only those."""
    ours = {one["provisioner_name"] for _index, one in wanted.installed}
    names = [one["name"] for one in wanted.classes if one["provisioner"] in ours]
    for index, name in enumerate(named):
        if name not in names:
            words = f'no provisioner of k8s_storage_provisioners serves a class "{name}" of k8s_storage_classes'
            problem(f"verify_classes[{index}]", f"{words}{did_you_mean(name, names)}")
    return [name for name in names if name in named or not named]


def _is_wanted(cluster: Cluster) -> bool:
    return bool(cluster.provisioners or cluster.classes or cluster.volumes or cluster.claims)


def _missing_namespaces(cluster: Cluster, there: Sequence[str]) -> list[str]:
    """Only those that are not there: a namespace of somebody else is not taken over."""
    needed = [one["namespace"] for _index, one in cluster.installed if one["method"] != "installed"]
    needed += [one["namespace"] for one in cluster.claims]
    return [name for name in dict.fromkeys(needed) if name not in there]


def _server(host: Mapping[str, Any], variables: Mapping[str, Any]) -> Server:
    return Server(
        name=host["name"],
        addresses=_addresses.of_host(host["name"], host["address"], host["facts"]),
        directories=variables.get("nfs_server_directories") or [],
        exports=variables.get("nfs_server_exports") or [],
    )


def _uses(cluster: Cluster) -> list[Use]:
    used: dict[Use, None] = {}
    for place, one, server, path, options in _cluster.directories_in_use(cluster):
        kind = place.partition("[")[0].removeprefix("k8s_storage_")
        use = Use(
            kind={"provisioners": "provisioner", "classes": "class", "volumes": "volume"}[kind],
            name=one["name"],
            place=place,
            server=server,
            path=path,
            mount_options=tuple(options),
            writes=kind != "volumes" or bool(_WRITES & set(one["access_modes"])),
        )
        if use.path.startswith("/"):
            used[use] = None
    return list(used)
