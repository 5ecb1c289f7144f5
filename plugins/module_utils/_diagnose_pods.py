# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a pod does not run, does not write or does not end: one function a cause, in the order of the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Optional

from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose_mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import (
    Facts,
    Finding,
    finding,
    sources_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    Source,
    claims_of,
    containers_of,
    entries,
    few,
    full_name,
    is_deleting,
    labels_in_words,
    mapping,
    name_of,
    namespace_of,
    number,
    phase_of,
    selects,
    statuses_of,
    text,
    texts,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_provisioners import logs_of
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers

KIND = "Pod"
# The grace period is part of deletionTimestamp already; kubelet needs some seconds more.
ENDING_SECONDS = 30.0
_DEAD = ("hung", "unreachable", "stale")
_DENIED = re.compile(r"permission denied|operation not permitted|\bEACCES\b|\bEPERM\b", re.IGNORECASE)
_READ_ONLY = re.compile(r"read-only file system|\bEROFS\b", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w.])/[\w./@+-]+")

Diagnosis = Callable[[Object, Facts], Optional[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    answers = (next(filter(None, (one(pod, facts) for one in DIAGNOSES)), None) for pod in facts.pods or ())
    return [one for one in answers if one]


# It does not end -----------------------------------------------------------------------------------------


def _is_overdue(pod: Object, facts: Facts) -> bool:
    return is_deleting(pod) and facts.age(text(pod, "metadata", "deletionTimestamp")) > ENDING_SECONDS


def dead_mount(pod: Object, facts: Facts) -> Finding | None:
    """kubelet cannot unmount, nor kill a process that waits for the server."""
    if not _is_overdue(pod, facts):
        return None
    node, since = text(pod, "spec", "nodeName"), text(pod, "metadata", "deletionTimestamp")
    mounts, sources = facts.mounts_of(pod), [one for _name, one in sources_of(pod, facts)]
    dead = [one for one in mounts if text(one, "health") in _DEAD]
    if dead:
        one = dead[0]
        return finding(
            KIND,
            pod,
            "pod-terminating-dead-mount",
            f"Pod {full_name(pod)} cannot end: its mount of {text(one, 'source')} on {node} is {text(one, 'health')}; "
            "bring the server back, or run playbook recover.",
            *(f"{node}: {text(each, 'path')} is {text(each, 'health')}" for each in dead[:3]),
            f"deleted at {since}",
        )
    looked_at = any(text(one, "host") == node for one in facts.mounts) or bool(mounts)
    if not node or not sources or looked_at:
        return None
    silent = [one for one in sources if facts.answers(one.server) is False]
    return finding(
        KIND,
        pod,
        "pod-terminating-dead-mount",
        f"Pod {full_name(pod)} does not end, probably because {few([one.server for one in (silent or sources)][:1])} "
        "does not answer; bring the server back, or run playbook recover.",
        f"deleted at {since}, still there",
        f"NFS volumes: {few(one.what for one in sources)}",
        *(f"{one.server} does not answer" for one in silent[:1]),
        check=f"nfs_mounts_info on {node}: health of the mounts of pod uid {text(pod, 'metadata', 'uid')}",
    )


def node_gone(pod: Object, facts: Facts) -> Finding | None:
    """Only its kubelet can say that the pod has ended."""
    node = text(pod, "spec", "nodeName")
    if not _is_overdue(pod, facts) or not node or facts.nodes is None:
        return None
    item = next((one for one in facts.nodes if name_of(one) == node), None)
    ready = [text(one, "status") for one in entries(item, "status", "conditions") if text(one, "type") == "Ready"]
    if item is not None and ready != ["Unknown"]:
        return None
    if not [one for _name, one in sources_of(pod, facts)]:
        return None
    return finding(
        KIND,
        pod,
        "pod-terminating-node-gone",
        f"Pod {full_name(pod)} cannot end, since kubelet on node {node} is not heard of; bring the node back.",
        f"node {node}: {'Ready is Unknown' if item is not None else 'there is no such node'}",
    )


def finalizer(pod: Object, facts: Facts) -> Finding | None:
    finalizers = texts(pod, "metadata", "finalizers")
    if not _is_overdue(pod, facts) or not finalizers or not claims_of(pod):
        return None
    return finding(
        KIND,
        pod,
        "pod-terminating-finalizer",
        f"Pod {full_name(pod)} cannot go, since finalizer {few(finalizers[:1])} holds it; "
        "repair the controller that set it.",
        f"finalizers: {', '.join(finalizers)}",
    )


# It does not start ---------------------------------------------------------------------------------------


def claim_missing(pod: Object, facts: Facts) -> Finding | None:
    if phase_of(pod) != "Pending" or facts.claims is None or is_deleting(pod):
        return None
    namespace = namespace_of(pod)
    for claim in claims_of(pod):
        if (namespace, claim) in facts.claim_by_name:
            continue
        elsewhere = sorted(other for other, name in facts.claim_by_name if name == claim)
        if elsewhere:
            return finding(
                KIND,
                pod,
                "claim-in-other-namespace",
                f"Pod {full_name(pod)} uses claim {claim}, which is in namespace {few(elsewhere)}, not in {namespace}; "
                "put both into one namespace.",
                *(f"claim {other}/{claim} exists" for other in elsewhere),
                *_unschedulable(pod),
            )
        return finding(
            KIND,
            pod,
            "claim-missing",
            f"Pod {full_name(pod)} uses claim {claim}, which does not exist; make it in namespace {namespace}.",
            f"no claim {namespace}/{claim}",
            *_unschedulable(pod),
        )
    return None


def _unschedulable(pod: Object) -> Iterator[str]:
    for one in entries(pod, "status", "conditions"):
        message = one.get("message")
        if text(one, "reason") == "Unschedulable" and isinstance(message, str):
            yield f"scheduler: {' '.join(message.split())}"


def no_node(pod: Object, facts: Facts) -> Finding | None:
    wanted = mapping(pod, "spec", "nodeSelector")
    if phase_of(pod) != "Pending" or not wanted or text(pod, "spec", "nodeName") or facts.nodes is None:
        return None
    if any(selects({"matchLabels": wanted}, mapping(one, "metadata", "labels")) for one in facts.nodes):
        return None
    lacking = {
        key: value
        for key, value in wanted.items()
        if not any(selects({"matchLabels": {key: value}}, mapping(one, "metadata", "labels")) for one in facts.nodes)
    }
    return finding(
        KIND,
        pod,
        "no-node-matches",
        f"Pod {full_name(pod)} wants a node with label {labels_in_words(lacking or wanted)}, which none has; "
        "label a node, or correct nodeSelector.",
        f"nodeSelector: {labels_in_words(wanted)}; nodes: {few(map(name_of, facts.nodes), 5) or 'none'}",
        *_unschedulable(pod),
    )


# It does not write ---------------------------------------------------------------------------------------


def _complaint(pod: Object, facts: Facts, pattern: re.Pattern[str]) -> tuple[str, Source] | None:
    """What a container said, and the NFS volume that it means; other places are not ours."""
    if not _has_trouble(pod):
        return None
    sources = dict(sources_of(pod, facts))
    places = {
        text(one, "mountPath"): sources[text(one, "name")]
        for container in containers_of(pod)
        for one in entries(container, "volumeMounts")
        if text(one, "name") in sources and text(one, "mountPath")
    }
    for line in logs_of(pod, facts):
        if not places or not pattern.search(line):
            continue
        paths = _PATH.findall(line)
        meant = [source for place, source in places.items() if any(covers(place, one) for one in paths)]
        if meant or not paths:
            return " ".join(line.split()), (meant or list(places.values()))[0]
    return None


def _has_trouble(pod: Object) -> bool:
    if phase_of(pod) == "Failed":
        return True
    states = [mapping(one, which) for one in statuses_of(pod) for which in ("state", "lastState")]
    return any(text(one, "waiting", "reason") == "CrashLoopBackOff" for one in states) or any(
        (number(one, "terminated", "exitCode") or 0) != 0 for one in states
    )


def permission_denied(pod: Object, facts: Facts) -> Finding | None:
    """Squash of the export, user of the pod, and owner and mode of the directory, taken together."""
    found = _complaint(pod, facts, _DENIED)
    if not found:
        return None
    line, source = found
    user, groups = _identity(pod)
    exports = _exports(pod, source, facts)
    options = texts(exports[0], "options") if exports else []
    on_server = _squashed(user, options) if exports else None
    directory = facts.directory(source.server, source.path)
    evidence = [
        f"container: {line}",
        f"user of the pod: {'that of its image' if user is None else user}",
        f"options of the export: {', '.join(options)}" if options else "",
        f"{source.path}: {_owner_and_mode(directory)}" if _owner_and_mode(directory) else "",
    ]
    if user is not None and on_server is not None and directory and _may_write(on_server, groups, directory) is False:
        squashed = f", uid {on_server} there," if on_server != user else ""
        return finding(
            KIND,
            pod,
            "permission-denied",
            f"Pod {full_name(pod)}: uid {user}{squashed} may not write to {source.what} "
            f"({_owner_and_mode(directory)}); change owner or mode of the directory.",
            *evidence,
        )
    return finding(
        KIND,
        pod,
        "permission-denied",
        f"Pod {full_name(pod)} may not write to {source.what}; "
        "make owner and mode of the directory, runAsUser and squash of the export fit.",
        *evidence,
        check=f"on {source.server}: ls -ldn {source.path}, and exportfs -v (root_squash, all_squash); "
        "which user the container runs as",
    )


def _exports(pod: Object, source: Source, facts: Facts) -> list[Object]:
    exports = _diagnose_mounts.exports_for(source, facts) or []
    return _diagnose_mounts.exports_for_node(text(pod, "spec", "nodeName"), exports, facts) or exports


def _identity(pod: Object) -> tuple[int | None, set[int]]:
    """User and groups of the containers, where the pod says so; fsGroup is a group of theirs, and no more on NFS."""
    contexts = [
        mapping(pod, "spec", "securityContext"),
        *(mapping(one, "securityContext") for one in containers_of(pod)),
    ]
    users = [found for one in contexts for found in [number(one, "runAsUser")] if found is not None]
    groups = {
        found for one in contexts for found in (number(one, "runAsGroup"), number(one, "fsGroup")) if found is not None
    }
    more = (mapping(pod, "spec", "securityContext").get("supplementalGroups") or []) if contexts else []
    if isinstance(more, (list, tuple)):
        groups |= {one for one in more if isinstance(one, int)}
    return (users[-1] if users else None), groups


def _squashed(user: int | None, options: list[str]) -> int | None:
    """Who the user is on the server."""
    anonymous = next((one[8:] for one in options if one.startswith("anonuid=")), "65534")
    if user is not None and "all_squash" not in options and (user != 0 or "no_root_squash" in options):
        return user
    return int(anonymous) if anonymous.isdecimal() and len(anonymous) < 20 else None


def _mode(directory: Any) -> int | None:
    try:
        return int(text(directory, "mode"), 8)
    except ValueError:
        return None


def _owner_and_mode(directory: Any) -> str:
    if _mode(directory) is None or number(directory, "uid") is None:
        return ""
    return f"owner {number(directory, 'uid')}:{number(directory, 'gid')}, mode {text(directory, 'mode')}"


def _may_write(user: int, groups: set[int], directory: Any) -> bool | None:
    mode, owner = _mode(directory), number(directory, "uid")
    if mode is None or owner is None:
        return None
    if user == 0:
        return True
    shift = 6 if user == owner else 3 if number(directory, "gid") in groups else 0
    return (mode >> shift) & 0o3 == 0o3


def read_only(pod: Object, facts: Facts) -> Finding | None:
    found = _complaint(pod, facts, _READ_ONLY)
    if not found:
        return None
    line, source = found
    options = [texts(one, "options") for one in _exports(pod, source, facts)]
    exported = bool(options) and all("ro" in one for one in options)
    return finding(
        KIND,
        pod,
        "read-only-file-system",
        f"Pod {full_name(pod)} writes to {source.what}, which is read-only; export it rw, "
        "and take readOnly and ro from pod, volume and class.",
        f"container: {line}",
        f"options of the export: {', '.join(options[0])}" if options else "",
        check="" if exported else f"exportfs -v on {source.server}; readOnly of the pod's volume; ro in mountOptions",
    )


DIAGNOSES: tuple[Diagnosis, ...] = (
    node_gone,
    dead_mount,
    finalizer,
    claim_missing,
    no_node,
    _diagnose_mounts.diagnose,
    permission_denied,
    read_only,
)
