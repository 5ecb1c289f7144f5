# SPDX-License-Identifier: GPL-3.0-or-later
"""The summary says what works only where it was seen to work, and nothing that went wrong is lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _verification

NAMESPACE = "storage-verify-1"
VOLUME = "pvc-1"
DIRECTORY = f"/nfs/dpv/{NAMESPACE}-claim-1-{VOLUME}"
SAID = {
    "write": {"test": "size: written\ntotal: 1000000\nback: seen\n", "user": "write: written\n"},
    "access-mode": {"test": "write: written\n"},
    "read-only": {"test": "write: refused: sh: can't create /mnt/read-only: Read-only file system\n"},
    "mount-option": {"test": "write: refused: sh: can't create /mnt/mount-option: Read-only file system\n"},
}


def thing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, **({} if kind in ("Namespace", "StorageClass") else {"namespace": NAMESPACE})}
    return {"kind": kind, "metadata": {**metadata, **more.pop("metadata", {})}, **more}


def pod(does: str, node: str, phase: str = "Succeeded") -> dict[str, Any]:
    storage_class = "" if does == "inline" else "managed"
    return thing(
        "Pod",
        does,
        metadata={
            "uid": does,
            "labels": {_verification.DOES: does},
            "annotations": {_verification.CLASS: storage_class},
        },
        spec={"nodeName": node, "volumes": [{"nfs": {"server": "192.0.2.1", "path": "/nfs/dpv"}}]},
        status={
            "phase": phase,
            "containerStatuses": [
                {"name": name, "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}}
                for name, message in SAID.get(does, {"test": ""}).items()
            ],
        },
    )


def file(name: str, owner: int = 65534, size: int = 17) -> dict[str, Any]:
    return {"path": f"{DIRECTORY}/{name}", "uid": owner, "gid": owner, "size": size}


def good() -> dict[str, Any]:
    """What was gathered when everything works."""
    pods = [pod("write", "node1"), pod("read", "node2"), pod("inline", "node1")]
    claim = thing(
        "PersistentVolumeClaim",
        "claim-1",
        metadata={"annotations": {_verification.CLASS: "managed", _verification.PROVISIONER: "prov"}},
        spec={"volumeName": VOLUME, "accessModes": ["ReadWriteMany"]},
        status={"phase": "Bound"},
    )
    own = {
        "metadata": {"namespace": "default", "name": "c1"},
        "spec": {"volumeName": "v1"},
        "status": {"phase": "Bound"},
    }
    wanted = [{"path": "/nfs/dpv", "clients": [{"host": "192.0.2.0/24", "options": ["rw", "insecure"]}]}]
    served = ["rw", "sync", "wdelay", "hide", "nocrossmnt", "insecure", "root_squash", "no_all_squash"]
    served += ["no_subtree_check", "secure_locks", "acl", "no_pnfs", "anonuid=65534", "anongid=65534", "sec=sys"]
    return {
        "inputs": {
            "servers": {"server1": {"exports": wanted, "directories": []}},
            "uses": [
                {
                    "kind": "provisioner",
                    "name": "prov",
                    "place": "k8s_storage_provisioners[0]",
                    "host": "server1",
                    "path": "/nfs/dpv",
                }
            ],
            "cluster": {
                "provisioners": [{"name": "prov", "engine": "subdir", "server": "192.0.2.1"}],
                "classes": [{"name": "managed", "volume_binding_mode": "Immediate"}],
                "claims": [{"namespace": "default", "name": "c1", "storage_class": "nfs"}],
            },
        },
        "check_mode": False,
        "namespaces": ["default", "storage-verify-old"],
        "servers": {
            "server1": {
                "exports": {
                    "exports": [{"path": "/nfs/dpv", "host": "192.0.2.0/24", "options": served}],
                    "threads": 8,
                    "versions": ["3", "4.2"],
                    "mount_list": [{"path": "/nfs/dpv", "hosts": ["192.0.2.0/24"]}],
                    "programs": [{"program": 100003}],
                },
                "error": "",
                "files": [
                    file("SUCCESS"),
                    file("SUCCESS-8Mi", size=8 * 1024 * 1024 + 17),
                    file("SUCCESS-back"),
                    file("SUCCESS-1000", 1000),
                ],
                "files_error": "",
                "left": [],
                "looked": True,
            }
        },
        "claims": [own],
        "objects": [thing("Namespace", NAMESPACE), thing("StorageClass", f"{NAMESPACE}-1"), claim, *pods],
        "made": {"result": {"results": [{"result": {}}] * 6}},
        "pods": pods,
        "events": [],
        "test_claims": [claim],
        "users_gone": {"result": {"results": [{"result": {}}] * 4}},
        "volumes": [{"metadata": {"name": "other"}, "spec": {}}],
        "rest_gone": {"result": {"results": [{"result": {}}] * 2}},
    }


def test_what_works_is_said_line_by_line() -> None:
    assert _verification.summary(good()) == {
        "lines": [
            "ok: server1: all 1 exports are in effect, NFS 3, 4.2 is served",
            "ok: server1: rpcbind knows nfs, mountd offers all exports",
            "ok: claim default/c1 is Bound to v1",
            "ok: class managed: a claim of 2Mi is Bound; node1 wrote SUCCESS, node2 read it and wrote back, "
            "node1 read that",
            "ok: inline volume 192.0.2.1:/nfs/dpv: node1 wrote, read and removed a file",
            f"ok: server1: {DIRECTORY}/SUCCESS holds what the pod wrote",
            "ok: all objects, volumes and directories of the test are gone",
            "note: class managed: size not enforced: 8 MiB were written into a claim of 2Mi",
            "note: class managed: uid mapping (root_squash): 0:0 writes as 65534:65534 on server1, "
            "1000:1000 as 1000:1000",
            "not checked: whether anything enforces ReadOnlyMany, since verify_deep is false",
        ],
        "wrong": [],
    }


def set_at(record: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split("/")
    place: Any = record
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("servers/server1/exports/exports", [], "/nfs/dpv is not exported to 192.0.2.0/24"),
        ("servers/server1/exports/exports/0/options", ["ro", "insecure"], "is exported to 192.0.2.0/24 with "),
        ("servers/server1/exports/threads", 0, "nothing is served"),
        ("servers/server1/exports/mount_list", [], "mountd does not offer /nfs/dpv"),
        ("servers/server1/exports/programs", [], "not registered with rpcbind"),
        ("servers/server1/exports", {}, "server1: exports: "),
        ("servers/server1", {}, "server1: exports: they cannot be read"),
        ("servers/server1/files", [], "SUCCESS is not there"),
        ("servers/server1/files/2", file("other"), "SUCCESS-back is not there"),
        ("servers/server1/files/3", file("other"), "uid 1000 wrote a file, but it is not there on server1"),
        ("servers/server1/files/1/size", 4096, "wrote 8 MiB, but the server has 4096 bytes of them"),
        ("servers/server1/files_error", "no such luck", "server1: files of the test: no such luck"),
        ("servers/server1/looked", False, "server1: could not be asked whether the test left files in /nfs/dpv"),
        (
            "pods/0/status/containerStatuses/0/state/terminated/message",
            "size: written\nback: unseen\n",
            "class managed: node1 has not seen what node2 wrote",
        ),
        ("servers/server1/left", ["/nfs/dpv/archived-x"], "server1: left by the test: /nfs/dpv/archived-x"),
        ("claims", [], "claim default/c1 is missing"),
        ("claims/0/status/phase", "Pending", "claim default/c1 is Pending"),
        ("test_claims/0/status/phase", "Pending", "class managed: a claim of 2Mi is Pending"),
        ("test_claims", [], "class managed: a claim of 2Mi is missing"),
        ("pods/0/status/phase", "Failed", "Pod storage-verify-1/write: Failed"),
        ("pods/2/status/phase", "Pending", "Pod storage-verify-1/inline: Pending"),
        (
            "pods/1/status",
            {"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]},
            "a test pod did not succeed: Pod storage-verify-1/read: Running",
        ),
        ("pods", [], "only 0 of 3 test pods are there"),
        ("made/result/results/1", {"error": {"msg": "no"}}, "the API refused a test object: StorageClass"),
        ("users_gone/result/results/0", {"error": {"msg": "no"}}, "could not be removed: Pod storage-verify-1/write"),
        (
            "volumes/0/spec",
            {"storageClassName": f"{NAMESPACE}-1"},
            "the provisioner has not removed other; kept for it: namespace storage-verify-1",
        ),
        ("rest_gone", {}, "not removed: Namespace storage-verify-1, StorageClass storage-verify-1-1"),
    ],
)
def test_nothing_that_is_wrong_is_lost(path: str, value: Any, words: str) -> None:
    # Pods and claims stand twice in what was gathered: as wanted, and as found.
    record = copy.deepcopy({key: value for key, value in good().items() if key != "objects"})
    record["objects"] = good()["objects"]
    set_at(record, path, value)
    result = _verification.summary(record)
    assert any(words in line for line in result["wrong"]), result
    assert all(f"WRONG: {line}" in result["lines"] for line in result["wrong"])


def test_what_one_node_did_alone_is_not_called_a_second_one() -> None:
    record = good()
    record["pods"][1]["spec"]["nodeName"] = "node1"
    lines = _verification.summary(record)["lines"]
    assert "not checked: class managed from a second node, since pods run on node1 only" in lines


def test_a_server_that_serves_version_4_only_is_not_asked_about_mountd() -> None:
    record = good()
    record["servers"]["server1"]["exports"].update(versions=["4.2"], mount_list=None, programs=None)
    assert _verification.summary(record)["wrong"] == []


def test_check_mode_says_what_it_left_out_and_calls_nothing_wrong_that_is_to_be_made() -> None:
    record = {**good(), "check_mode": True, "objects": [], "pods": [], "test_claims": [], "claims": []}
    lines = _verification.summary(record)["lines"]
    assert "not checked: test claims and pods, since check mode only reads" in lines
    assert "not yet: claim default/c1 is missing" in lines


def test_a_claim_that_waits_for_its_pod_is_not_waited_for() -> None:
    inputs = good()["inputs"]
    assert _verification.unbound([], inputs) == ["default/c1"]
    inputs["cluster"]["claims"][0]["storage_class"] = "managed"
    inputs["cluster"]["classes"][0]["volume_binding_mode"] = "WaitForFirstConsumer"
    assert _verification.unbound([], inputs) == []


def test_a_foreign_server_is_not_looked_into_and_that_is_said() -> None:
    record = good()
    record["inputs"]["uses"] = []
    lines = _verification.summary(record)["lines"]
    assert 'not checked: files of provisioner "prov", since 192.0.2.1 is no server of ours' in lines


def test_only_what_a_provisioner_made_lies_in_its_directory() -> None:
    uses = [
        {"kind": "volume", "host": "s1", "path": "/nfs/v", "name": "v"},
        {"kind": "provisioner", "host": "s1", "path": "/nfs/p", "name": "a/b"},
        {"kind": "provisioner", "host": "s1", "path": "/nfs/p", "name": "c/d"},
        {"kind": "class", "host": "s1", "path": "/nfs/csi", "name": "fast"},
    ]

    def claim(name: str, provisioner: str, volume: str | None) -> dict[str, Any]:
        annotations = {_verification.PROVISIONER: provisioner}
        spec = {"volumeName": volume} if volume else {}
        return {"metadata": {"namespace": "n", "name": name, "annotations": annotations}, "spec": spec}

    found = _verification.places(
        {"uses": uses}, [claim("x", "a/b", "pv1"), claim("y", "e/f", "pv2"), claim("z", "a/b", None)]
    )
    assert found == {
        "s1": {
            "shares": ["/nfs/p", "/nfs/csi"],
            "directories": ["/nfs/p/n-x-pv1"],
            "patterns": ["*pv1*", "*pv2*"],
        }
    }
    of_csi = claim("x", "csi", "pv3")
    of_csi["metadata"]["annotations"][_verification.CLASS] = "fast"
    assert _verification.places({"uses": uses}, [of_csi])["s1"]["directories"] == ["/nfs/csi/pv3"]
    of_csi["spec"]["accessModes"] = ["ReadOnlyMany"]
    assert _verification.places({"uses": uses}, [of_csi])["s1"]["directories"] == []


def test_what_keeps_from_writing_to_read_only_claims_is_said_for_each() -> None:
    record = good()
    claim = thing(
        "PersistentVolumeClaim",
        "rox-1",
        metadata={"annotations": {_verification.CLASS: "managed"}},
        spec={"accessModes": ["ReadOnlyMany"]},
        status={"phase": "Bound"},
    )
    record["objects"].append(claim)
    record["test_claims"].append(claim)
    tried = [pod(does, "node2") for does in ("access-mode", "read-only", "mount-option")]
    record["objects"] += tried
    record["pods"] += tried
    result = _verification.summary(record)
    assert result["wrong"] == []
    assert [line for line in result["lines"] if "ReadOnlyMany" in line] == [
        "ok: class managed: ReadOnlyMany is enforced by readOnly: true of the pod's volume",
        "ok: class managed: ReadOnlyMany is enforced by the mount option ro",
        "note: class managed: ReadOnlyMany is not enforced by the access mode: node2 could write",
    ]
    claim["status"]["phase"] = "Pending"
    tried[0]["status"]["phase"] = "Pending"
    result = _verification.summary(record)
    assert "class managed: a claim of 2Mi and ReadOnlyMany is Pending" in result["wrong"]
    assert not [line for line in result["lines"] if "access mode" in line]


def test_without_a_server_of_ours_nobody_is_called_squashed() -> None:
    record = good()
    record["inputs"]["uses"] = []
    lines = _verification.summary(record)["lines"]
    assert "not checked: class managed: uid mapping, since its files are on no server of ours" in lines
    assert "note: class managed: size not enforced: 8 MiB were written into a claim of 2Mi" in lines
    assert not [line for line in lines if "squash" in line]


def test_what_another_run_left_is_told_and_is_no_fault() -> None:
    record = good()
    record["namespaces"].append("storage-verify-20260102-030405-678")
    result = _verification.summary(record)
    left = "namespace storage-verify-20260102-030405-678: left by another run of verify, which goes on or was killed"
    assert f"note: {left}" in result["lines"]
    assert result["wrong"] == []
