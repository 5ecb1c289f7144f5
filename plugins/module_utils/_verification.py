# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verification saw, in lines for a person: what is right, what is wrong, what was not looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_clients,
    _export_list,
    _export_options,
    _objects,
    _verification_answers,
)

CLASS = "storage.clusterkit/verify-class"
PROVISIONER = "storage.clusterkit/verify-provisioner"
# Program number of NFS in the RPC registry.
_NFS_PROGRAM = 100003
DOES = "storage.clusterkit/verify-does"
# As parts/verification.yml chooses them.
_NAMESPACE = r"storage-verify-\d{8}-\d{6}-\d+"


@dataclass
class Lines:
    right: list[str] = field(default_factory=list)
    note: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def as_dict(self, *, check_mode: bool) -> dict[str, list[str]]:
        # What a check on bare hosts finds missing is what the run is going to make.
        bad = "not yet" if check_mode else "WRONG"
        lines = [f"ok: {line}" for line in self.right]
        lines += [f"note: {line}" for line in self.note]
        lines += [f"{bad}: {line}" for line in self.wrong]
        lines += [f"not checked: {line}" for line in self.unseen]
        return {"lines": lines or ["nothing to check"], "wrong": self.wrong}

    def add(self, about: str, finding: _verification_answers.Finding) -> None:
        getattr(self, finding.kind).append(f"{about}: {finding.words}")


def unbound(live: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> list[str]:
    """Claims of the inventory that are not Bound, without those that wait for a pod by design."""
    return [f"{one['namespace']}/{one['name']}" for one in _awaited(inputs) if _phase(live, one) != "Bound"]


def places(inputs: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """For each host: the directories of our provisioners, those of the test claims in them, and names to look for."""
    found: dict[str, dict[str, list[str]]] = {}
    patterns = [f"*{claim['spec']['volumeName']}*" for claim in claims if claim["spec"].get("volumeName")]
    for use in inputs["uses"]:
        if use["kind"] == "volume":
            continue
        entry = found.setdefault(use["host"], {"shares": [], "directories": [], "patterns": patterns})
        if use["path"] not in entry["shares"]:
            entry["shares"].append(use["path"])
    for host, directory, _claim in _directories(inputs, claims):
        found[host]["directories"].append(directory)
    return found


def _directories(
    inputs: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Host, directory and claim, for the claims that were written on."""
    for use in inputs["uses"]:
        for claim in claims:
            volume = claim["spec"].get("volumeName")
            if not volume or not _is_written(claim):
                continue
            if use["kind"] == "class" and _annotation(claim, CLASS) == use["name"]:
                yield use["host"], f"{use['path']}/{volume}", claim  # csi-driver-nfs
            elif use["kind"] == "provisioner" and _annotation(claim, PROVISIONER) == use["name"]:
                name = f"{claim['metadata']['namespace']}-{claim['metadata']['name']}-{volume}"
                yield use["host"], f"{use['path']}/{name}", claim


def _is_written(claim: Mapping[str, Any]) -> bool:
    return "ReadOnlyMany" not in claim["spec"].get("accessModes", [])


def summary(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """All lines, and the wrong ones again; C(record) is what the playbook gathered."""
    lines = Lines()
    _servers(record, lines)
    _claims(record, lines)
    if record["objects"]:
        lines.wrong += [
            f"the API refused a test object: {one}" for one in _objects.refusals(record["made"], record["objects"])
        ]
        _classes(record, lines)
        _inline(record, lines)
        _unfinished(record, lines)
        _contents(record, lines)
        _answers(record, lines)
        _read_only(record, lines)
        _removal(record, lines)
    elif record["check_mode"]:
        lines.unseen.append("test claims and pods, since check mode only reads")
    else:
        lines.unseen.append("dynamic volumes, since k8s_storage_provisioners has none")
    lines.note += [
        f"namespace {name}: left by another run of verify, which goes on or was killed"
        for name in record["namespaces"]
        if re.fullmatch(_NAMESPACE, name)
    ]
    return lines.as_dict(check_mode=record["check_mode"])


def _claims(record: Mapping[str, Any], lines: Lines) -> None:
    for one in _awaited(record["inputs"]):
        name, phase = f"claim {one['namespace']}/{one['name']}", _phase(record["claims"], one)
        if phase == "Bound":
            volume = next(item["spec"].get("volumeName", "") for item in record["claims"] if _is(item, one))
            lines.right.append(f"{name} is Bound to {volume}")
        else:
            lines.wrong.append(f"{name} is {phase}")


def _classes(record: Mapping[str, Any], lines: Lines) -> None:
    wanted = [one for one in record["objects"] if one["kind"] == "PersistentVolumeClaim"]
    for claim in wanted:
        name = _annotation(claim, CLASS)
        key = {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"]}
        phase = _phase(record["test_claims"], key)
        if phase != "Bound":
            mode = "" if _is_written(claim) else " and ReadOnlyMany"
            lines.wrong.append(f"class {name}: a claim of 2Mi{mode} is {phase}")
        elif _is_written(claim):
            _two_nodes(record["pods"], name, lines)


def _two_nodes(pods: Sequence[Mapping[str, Any]], name: str, lines: Lines) -> None:
    writer, reader = _pod(pods, name, "write"), _pod(pods, name, "read")
    if not writer or not reader:
        # The pods themselves are named further below.
        return
    wrote, read = writer["spec"]["nodeName"], reader["spec"]["nodeName"]
    words = f"class {name}: a claim of 2Mi is Bound; {wrote} wrote SUCCESS, {read} read it"
    if _verification_answers.said(writer, "test").get("back") == "seen":
        lines.right.append(f"{words} and wrote back, {wrote} read that")
    else:
        lines.right.append(words)
        lines.wrong.append(f"class {name}: {wrote} has not seen what {read} wrote")
    if wrote == read:
        lines.unseen.append(f"class {name} from a second node, since pods run on {read} only")


def _inline(record: Mapping[str, Any], lines: Lines) -> None:
    for pod in record["pods"]:
        if _label(pod, DOES) == "inline" and _succeeded(pod):
            volume = pod["spec"]["volumes"][0]["nfs"]
            lines.right.append(
                f"inline volume {volume['server']}:{volume['path']}: {pod['spec']['nodeName']} wrote, read and removed "
                "a file"
            )


def _unfinished(record: Mapping[str, Any], lines: Lines) -> None:
    unfinished = [pod for pod in record["pods"] if not _succeeded(pod)]
    lines.wrong += [f"a test pod did not succeed: {one}" for one in _objects.pod_states(unfinished, record["events"])]
    wanted = sum(one["kind"] == "Pod" for one in record["objects"])
    if len(record["pods"]) < wanted:
        lines.wrong.append(f"only {len(record['pods'])} of {wanted} test pods are there")


def _contents(record: Mapping[str, Any], lines: Lines) -> None:
    inputs = record["inputs"]
    for host, directory, claim in _directories(inputs, record["test_claims"]):
        files = _files(record["servers"].get(host) or {})
        if f"{directory}/SUCCESS" not in files:
            lines.wrong.append(f"{host}: {directory}/SUCCESS is not there, or holds something else")
        else:
            lines.right.append(f"{host}: {directory}/SUCCESS holds what the pod wrote")
            if _pod(record["pods"], _annotation(claim, CLASS), "read") and f"{directory}/SUCCESS-back" not in files:
                lines.wrong.append(f"{host}: {directory}/SUCCESS-back is not there, or holds something else")
    lines.wrong += [
        f"{host}: files of the test: {seen['files_error']}"
        for host, seen in record["servers"].items()
        if seen and seen.get("files_error")
    ]
    located = {use["place"] for use in inputs["uses"]}
    for index, one in enumerate(inputs["cluster"]["provisioners"]):
        if one["engine"] == "subdir" and f"k8s_storage_provisioners[{index}]" not in located:
            lines.unseen.append(f'files of provisioner "{one["name"]}", since {one["server"]} is no server of ours')


def _answers(record: Mapping[str, Any], lines: Lines) -> None:
    """What the writer of each class could do, beside what the server has of it."""
    where = {
        _annotation(claim, CLASS): (host, directory)
        for host, directory, claim in _directories(record["inputs"], record["test_claims"])
    }
    for name in dict.fromkeys(_annotation(one, CLASS) for one in record["objects"] if _label(one, DOES) == "write"):
        pod = _pod(record["pods"], name, "write")
        if not pod:
            continue
        host, directory = where.get(name, ("", ""))
        files = _files(record["servers"].get(host) or {})
        large = files.get(f"{directory}/SUCCESS-8Mi")
        finding = _verification_answers.size(
            _verification_answers.said(pod, "test"), int(large["size"]) if large else None
        )
        lines.add(f"class {name}", finding)
        root = files.get(f"{directory}/SUCCESS")
        if root:
            user = files.get(f"{directory}/SUCCESS-{_verification_answers.UID}")
            outcome = _verification_answers.said(pod, "user").get("write", "")
            lines.add(
                f"class {name}",
                _verification_answers.owners(_owner(root), _owner(user) if user else None, outcome, host),
            )
        elif not host:
            lines.unseen.append(f"class {name}: uid mapping, since its files are on no server of ours")


def _read_only(record: Mapping[str, Any], lines: Lines) -> None:
    wanted = [one for one in record["objects"] if _label(one, DOES) in _verification_answers.READ_ONLY]
    for one in wanted:
        name, does = _annotation(one, CLASS), _label(one, DOES)
        pod = _pod(record["pods"], name, does)
        if pod:
            answer = _verification_answers.said(pod, "test")
            lines.add(f"class {name}", _verification_answers.read_only(does, answer, pod["spec"]["nodeName"]))
    if not wanted and any(_label(one, DOES) == "write" for one in record["objects"]):
        lines.unseen.append("whether anything enforces ReadOnlyMany, since verify_deep is false")


def _removal(record: Mapping[str, Any], lines: Lines) -> None:
    objects = record["objects"]
    users = [one for kind in ("Pod", "PersistentVolumeClaim") for one in objects if one["kind"] == kind]
    rest = [one for kind in ("Namespace", "StorageClass") for one in objects if one["kind"] == kind]
    wrong = [
        f"could not be removed: {one}"
        for answer, sent in ((record["users_gone"], users), (record["rest_gone"], rest))
        for one in _objects.refusals(answer, sent)
    ]
    classes = {one["metadata"]["name"] for one in objects if one["kind"] == "StorageClass"}
    volumes = [one for one in record["volumes"] if one["spec"].get("storageClassName") in classes]
    if volumes:
        names = ", ".join(one["metadata"]["name"] for one in volumes)
        wrong.append(
            f"the provisioner has not removed {names}; kept for it: namespace "
            f"{rest[0]['metadata']['name']}, classes {', '.join(sorted(classes))}"
        )
    elif not record["rest_gone"]:
        wrong.append(f"not removed: {', '.join(_objects.name_of(one) for one in rest)}")
    for host, place in places(record["inputs"], record["test_claims"]).items():
        seen = record["servers"].get(host) or {}
        wrong += [f"{host}: left by the test: {path}" for path in seen.get("left") or []]
        if place["shares"] and not seen.get("looked"):
            wrong.append(f"{host}: could not be asked whether the test left files in {', '.join(place['shares'])}")
    lines.wrong += wrong
    if not wrong:
        lines.right.append("all objects, volumes and directories of the test are gone")


def _awaited(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    late = {one["name"] for one in inputs["cluster"]["classes"] if one["volume_binding_mode"] == "WaitForFirstConsumer"}
    return (one for one in inputs["cluster"]["claims"] if one["storage_class"] not in late)


def _phase(live: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> str:
    return str(next(((item.get("status") or {}).get("phase") for item in live if _is(item, wanted)), "missing"))


def _is(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    metadata = item["metadata"]
    return bool(metadata["namespace"] == wanted["namespace"] and metadata["name"] == wanted["name"])


def _pod(pods: Sequence[Mapping[str, Any]], storage_class: str, does: str) -> Mapping[str, Any] | None:
    """The pod that did it, if it has succeeded."""
    for pod in pods:
        if _annotation(pod, CLASS) == storage_class and _label(pod, DOES) == does and _succeeded(pod):
            return pod
    return None


def _files(seen: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {one["path"]: one for one in seen.get("files") or []}


def _owner(file: Mapping[str, Any]) -> _verification_answers.Owner:
    return int(file["uid"]), int(file["gid"])


def _label(item: Mapping[str, Any], name: str) -> str:
    return str((item["metadata"].get("labels") or {}).get(name, ""))


def _annotation(item: Mapping[str, Any], name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name, ""))


def _succeeded(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") == "Succeeded"


def _servers(record: Mapping[str, Any], lines: Lines) -> None:
    """Compare what the servers serve with what the inventory says."""
    for host, wanted in record["inputs"]["servers"].items():
        seen = record["servers"].get(host) or {}
        answer = seen.get("exports") or {}
        if answer.get("exports") is None:
            why = seen.get("error") or (answer.get("unavailable") or {}).get("exports") or "they cannot be read"
            lines.wrong.append(f"{host}: exports: {why}")
            continue
        wrong = _wrong_exports(wanted["exports"], answer["exports"])
        if not answer.get("threads"):
            wrong.append("no nfsd thread runs, nothing is served")
        lines.wrong += [f"{host}: {one}" for one in wrong]
        if not wrong:
            versions = ", ".join(answer.get("versions") or [])
            lines.right.append(f"{host}: all {len(wanted['exports'])} exports are in effect, NFS {versions} is served")
        if "3" in (answer.get("versions") or []):
            _version_3(host, wanted["exports"], answer, lines)


def _wrong_exports(wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[str]:
    table = {(one["path"], _export_clients.client_key(one["host"])): one["options"] for one in found}
    wrong = []
    for export in wanted:
        for client in export["clients"]:
            options = table.get((export["path"], _export_clients.client_key(client["host"])))
            if options is None:
                wrong.append(f"{export['path']} is not exported to {client['host']}")
                continue
            meant = _export_list.meaning(export, client)
            served, _problem = _export_options.read_options(",".join(options))
            if meant.mountpoint is None:
                served = replace(served, mountpoint=None)  # the server adds it to exports on a disk of their own
            different = _export_options.differences(meant, served)
            if different:
                wrong.append(f"{export['path']} is exported to {client['host']} with {', '.join(different)}")
    return wrong


def _version_3(host: str, wanted: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], lines: Lines) -> None:
    """Clients of NFSv3 find server and exports by rpcbind and mountd."""
    listed, programs = answer.get("mount_list"), answer.get("programs")
    if listed is None or programs is None:
        reasons = answer.get("unavailable") or {}
        why = reasons.get("mount_list") or reasons.get("programs") or "no answer"
        lines.unseen.append(f"{host} for NFSv3 clients (rpcinfo, showmount): {why}")
        return
    missing = sorted({one["path"] for one in wanted} - {one["path"] for one in listed})
    lines.wrong += [f"{host}: mountd does not offer {path} to clients of NFSv3" for path in missing]
    if not any(one["program"] == _NFS_PROGRAM for one in programs):
        lines.wrong.append(f"{host}: nfs is not registered with rpcbind")
    elif not missing:
        lines.right.append(f"{host}: rpcbind knows nfs, mountd offers all exports")
