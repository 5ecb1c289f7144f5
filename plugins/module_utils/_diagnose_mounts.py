# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why kubelet cannot mount the volume of a pod: one function a cause, chosen by what mount(8) and mount.nfs say.

The words are those of the events that kubelet writes (reason FailedMount, 1.35 and 1.37: 'MountVolume.SetUp failed for
volume "V" : mount failed: exit status 32 ... Output: mount.nfs: ...') around the messages of nfs-utils 2.6 to 2.8
(utils/mount/error.c) and util-linux.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import (
    Facts,
    Finding,
    finding,
    sources_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    Source,
    entries,
    few,
    full_name,
    phase_of,
    text,
    texts,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers

KIND = "Pod"
_VOLUME = re.compile(r'for volume "([^"\s]+)"')
_UNMOUNTED = re.compile(r"unmounted volumes=\[([^\]]*)\]")
_OUTPUT = re.compile(r"Output: *(.*)", re.DOTALL)


@dataclass(frozen=True)
class Failure:
    """A mount that failed."""

    pod: Object
    source: Source
    message: str
    facts: Facts

    @property
    def title(self) -> str:
        return full_name(self.pod)

    @property
    def node(self) -> str:
        return text(self.pod, "spec", "nodeName") or "its_node"

    def answer(self, cause: str, sentence: str, *evidence: str, check: str = "") -> Finding:
        return finding(KIND, self.pod, cause, sentence, *evidence, f"event: {_shorten(self.message)}", check=check)


Explanation = Callable[[Failure], Optional[Finding]]


def diagnose(pod: Object, facts: Facts) -> Finding | None:
    """Of a pod whose containers wait for its volumes."""
    if phase_of(pod) != "Pending" or not text(pod, "spec", "nodeName"):
        return None
    sources = dict(sources_of(pod, facts))
    for message in facts.warnings(pod, "FailedMount", "FailedAttachVolume"):
        source = _meant(message, sources)
        if source is None:
            continue
        failure = Failure(pod, source, message, facts)
        likely = (explain for pattern, several in CAUSES if pattern.search(message) for explain in several)
        found = next(filter(None, (explain(failure) for explain in likely)), None)
        if found:
            return found
    return None


def _meant(message: str, sources: dict[str, Source]) -> Source | None:
    """The NFS volume that the message is about."""
    named = _VOLUME.search(message)
    if named:
        return next((one for name, one in sources.items() if named[1] in (name, one.volume)), None)
    unmounted = _UNMOUNTED.search(message)
    waiting = unmounted[1].replace(",", " ").split() if unmounted else list(sources)
    return next((one for name, one in sources.items() if name in waiting), None)


def _shorten(message: str) -> str:
    """What mount said; kubelet puts its command line before it."""
    said = _OUTPUT.search(message)
    return said[1].strip() if said and said[1].strip() else message


# What the servers say ------------------------------------------------------------------------------------


def exports_for(source: Source, facts: Facts) -> list[Object] | None:
    """The exports that hold the path, of the innermost directory; None if nobody asked the server."""
    host = facts.exports_of(source.server)
    if host is None or not isinstance(host.get("exports"), (list, tuple)):
        return None
    holding = [one for one in entries(host, "exports") if text(one, "path") and covers(text(one, "path"), source.path)]
    deepest = max((len(text(one, "path")) for one in holding), default=0)
    return [one for one in holding if len(text(one, "path")) == deepest]


def _is_client(host: str, addresses: list[str]) -> bool | None:
    """Whether a client of exports(5) means one of the addresses; None where only the server can know."""
    if host == "*":
        return True
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        return True if host in addresses else None
    found = []
    for one in addresses:
        try:
            found.append(ipaddress.ip_address(one) in network)
        except ValueError:
            continue
    return any(found) if found else None


def _addresses(node: str, facts: Facts) -> list[str] | None:
    """All addresses of the node, if it was asked. Those in its Node object are of the network of the cluster."""
    said = next((one for one in facts.mounts if text(one, "host") == node), None)
    return texts(said, "addresses") or None


def exports_for_node(node: str, exports: list[Object], facts: Facts) -> list[Object]:
    """Those that may be for the node: netgroups, wildcards and names only the server can judge."""
    addresses = _addresses(node, facts)
    if addresses is None:
        return exports
    return [one for one in exports if _is_client(text(one, "host"), addresses) is not False]


def _not_exported(failure: Failure, cause: str) -> Finding | None:
    exports, source = exports_for(failure.source, failure.facts), failure.source
    if exports is None:
        return None
    if not exports:
        return failure.answer(
            cause,
            f"Pod {failure.title}: server {source.server} does not export {source.path}; "
            "export it, or correct the path in the volume.",
            f"{source.server} exports: {few(_paths(failure), 5) or 'nothing'}",
        )
    if not exports_for_node(failure.node, exports, failure.facts):
        hosts = few(text(one, "host") for one in exports)
        return failure.answer(
            "mount-access-denied",
            f"Pod {failure.title}: node {failure.node} is no client of export {text(exports[0], 'path')}; "
            "add its address to the export.",
            f"clients of {text(exports[0], 'path')}: {hosts}",
            f"addresses of {failure.node}: {few(_addresses(failure.node, failure.facts) or [], 5)}",
        )
    return None


def _paths(failure: Failure) -> list[str]:
    host = failure.facts.exports_of(failure.source.server)
    return sorted({text(one, "path") for one in entries(host, "exports")})


# Causes --------------------------------------------------------------------------------------------------


def illegal_port(failure: Failure) -> Finding | None:
    """A request from a port above 1023, to an export that is secure.

    mountd (NFSv3) denies access and logs "illegal port", nfsd (NFSv4) answers NFS4ERR_PERM.
    """
    source, exports = failure.source, exports_for(failure.source, failure.facts)
    unreserved = _mount_options.uses_unreserved_port(source.options)
    told = "illegal port" in failure.message
    secure: bool | None = None
    if exports:
        mine = exports_for_node(failure.node, exports, failure.facts)
        secure = bool(mine) and not any("insecure" in texts(one, "options") for one in mine)
    if secure is False or not (unreserved or told):
        return None
    certain = told or secure
    return failure.answer(
        "mount-illegal-port",
        f"Pod {failure.title}: {source.what} refuses ports above 1023 (noresvport); "
        "add insecure to the export, or take noresvport from the mount options.",
        f"mount options: {', '.join(source.options)}" if source.options else "",
        f"options of the export: {', '.join(texts(exports[0], 'options'))}" if exports else "",
        check=""
        if certain
        else f"exportfs -v on {source.server}: whether the export is secure (the default) or insecure",
    )


def not_for_node(failure: Failure) -> Finding | None:
    return _not_exported(failure, "mount-access-denied")


def no_such_directory(failure: Failure) -> Finding | None:
    """NFSv4 says the same of a path that is not there and of one that is not exported to the client."""
    found = _not_exported(failure, "mount-no-such-directory")
    if found:
        return found
    source = failure.source
    known = failure.facts.directory(source.server, source.path)
    missing = known is not None and known.get("exists") is False
    return failure.answer(
        "mount-no-such-directory",
        f"Pod {failure.title}: {source.what} does not exist; "
        "make the directory on the server, or correct the path in the volume.",
        f"{source.path} is not on {source.server}" if missing else "",
        check="" if missing else f"on {source.server}: ls -ld {source.path}, and exportfs -v",
    )


def protocol_not_supported(failure: Failure) -> Finding | None:
    source = failure.source
    wanted = _mount_options.what_they_mean(source.options).get("vers", "").partition("=")[2]
    versions = texts(failure.facts.exports_of(source.server), "versions")
    unserved = bool(wanted and versions) and not any(one == wanted or one.startswith(f"{wanted}.") for one in versions)
    return failure.answer(
        "mount-protocol-not-supported",
        f"Pod {failure.title}: server {source.server} does not serve the NFS version or transport asked for; "
        "change nfsvers of the volume or the server.",
        f"mount options: {', '.join(source.options)}" if source.options else "",
        f"{source.server} serves {', '.join(versions)}" if versions else "",
        check="" if unserved else f"on {source.server}: cat /proc/fs/nfsd/versions; mount options of the volume",
    )


def server_unreachable(failure: Failure) -> Finding | None:
    source, answers = failure.source, failure.facts.answers(failure.source.server)
    if answers and "context deadline exceeded" in failure.message:
        return None  # kubelet waits for something else
    return failure.answer(
        "mount-server-unreachable",
        f"Pod {failure.title}: NFS server {source.server} does not answer node {failure.node}; "
        "start the server, or open port 2049.",
        f"{source.server} {'answers' if answers else 'does not answer'} the NULL call of NFS"
        if answers is not None
        else "",
        check=""
        if answers is False
        else f"from {failure.node}: whether {source.server} answers on port 2049 (nfs_mounts_info, nfs_probe)",
    )


def option_refused(failure: Failure) -> Finding | None:
    return failure.answer(
        "mount-option-refused",
        f"Pod {failure.title}: mount.nfs does not know a mount option of its volume; "
        "correct mountOptions of volume and class, see nfs(5).",
        f"mount options: {', '.join(failure.source.options)}" if failure.source.options else "",
        *_mount_options.problems(failure.source.options),
    )


def _plain(cause: str, sentence: str, *, check: str = "") -> Explanation:
    """For words that leave nothing to look up: {title}, {node}, {server}, {path} and {what} are filled in."""

    def explain(failure: Failure) -> Finding:
        source = failure.source
        names = {"title": failure.title, "node": failure.node, "server": source.server, "path": source.path}
        names["what"] = source.what
        return failure.answer(cause, sentence.format(**names), check=check.format(**names))

    return explain


helper_missing = _plain(
    "mount-helper-missing",
    "Pod {title}: node {node} lacks the NFS client (mount.nfs); "
    "install nfs-common or nfs-utils there, for example by role nfs_client.",
)
access_denied = _plain(
    "mount-access-denied",
    "Pod {title}: server {server} denies node {node} access to {path}; add the node to the clients of the export.",
    check="exportfs -v on {server}: clients of {path}, and secure or insecure",
)
not_permitted = _plain(
    "mount-not-permitted",
    "Pod {title}: {what} does not permit the mount, by port or security flavor; compare mount options and export.",
    check="exportfs -v on {server}: insecure and sec= of the export",
)
name_unknown = _plain(
    "mount-server-name-unknown",
    "Pod {title}: node {node} cannot resolve {server}; correct DNS there, or use an address in the volume.",
)
statd_missing = _plain(
    "mount-statd-not-running",
    "Pod {title}: node {node} runs no rpc.statd, which NFSv3 needs for locks; start it, or mount with nfsvers=4.2.",
)
stale = _plain(
    "mount-stale",
    "Pod {title}: {what} was removed and made again, or its export withdrawn (stale); "
    "export it again, then run playbook recover.",
    check="on {server}: exportfs -v, and whether the directory is still the old one",
)
failed = _plain(
    "mount-failed",
    "Pod {title}: node {node} cannot mount {what}; the evidence has the words of mount.nfs.",
    check="journal of kubelet on {node}",
)

# Of each the first that has an answer counts.
CAUSES: tuple[tuple[re.Pattern[str], tuple[Explanation, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), tuple(explanations))
    for pattern, *explanations in (
        (r"illegal port", illegal_port),
        (r"might need a /sbin/mount|missing codepage or helper|unknown filesystem type '?nfs|mount\.nfs4?: not found"
         r"|mount program didn't pass remote address",  # the kernel's words, of util-linux 2.41 without a helper (seen)
         helper_missing),
        (r"access denied by server", illegal_port, not_for_node, access_denied),
        (r"mount\.nfs4?:.*operation not permitted", illegal_port, not_for_node, not_permitted),
        (r"reason given by server: no such file or directory", no_such_directory),
        (r"protocol not supported|nfs version or transport protocol is not supported"
         r"|nfs version [\d.]+ is not supported", protocol_not_supported),
        (r"failed to resolve server|name or service not known|temporary failure in name resolution", name_unknown),
        (r"rpc\.statd is not running", statd_missing),
        (r"incorrect mount option was specified", option_refused),
        (r"stale file handle", stale),
        (r"connection timed out|connection refused|no route to host|network is unreachable|host is down"
         r"|timed out, giving up|context deadline exceeded", server_unreachable),
        (r"MountVolume\.|rpc error", failed),
    )
)  # fmt: skip
