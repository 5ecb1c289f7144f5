# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule for provisioners and classes, in its words; what the charts get."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _charts, _cluster, _provisioner_inputs
from ansible_collections.clusterkit.storage.tests.inputs import PROVISIONER, check, claim, notes, problems
from hypothesis import given
from hypothesis import strategies as st

CSI: dict[str, Any] = {"engine": "csi", "method": "helm", "chart": "repo/csi-driver-nfs", "chart_version": "4.13.4"}
SAFE = "${.PVC.namespace}-${.PVC.name}"


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"server": "192.0.2.1"}, '.path: is missing in "nfs-client-provisioner"'),
        ({"path": "/nfs"}, '.server: is missing in "nfs-client-provisioner"'),
        ({"engine": "csi", "method": "installed", "path": "/nfs"}, ".server: is missing in"),
        ({"engine": "csi"}, ".method: engine csi takes helm or installed, not manifests"),
        ({**PROVISIONER, "method": "helm"}, ".chart: is missing in"),
        ({**CSI, "chart_version": "v4.13.0"}, '.chart_version: "v4.13.0" is csi-driver-nfs below 4.13.1'),
        ({**CSI, "chart_version": "", "chart": "/charts/csi-driver-nfs-4.10.0.tgz"}, "(CVE-2026-3864)"),
        ({**CSI, "values": {"image": {"nfs": {"tag": "v4.9.0"}}}}, ".values.image.nfs.tag: "),
        ({**PROVISIONER, "snapshot_classes": [{"name": "s"}]}, ".snapshot_classes: only engine csi makes snapshots"),
        ({**CSI, "snapshot_classes": [{"name": "S"}]}, '.snapshot_classes[0].name: "S" is not a name'),
        ({**CSI, "snapshot_classes": [{"name": "s", "parameters": {"a": 1}}]}, ".snapshot_classes[0].parameters.a: 1"),
    ],
)
def test_provisioners_that_cannot_work_are_refused(one: dict[str, Any], words: str) -> None:
    found = problems(k8s_storage_provisioners=[one])
    assert len(found) == 1 and found[0].startswith("localhost: k8s_storage_provisioners[0]."), found
    assert words in found[0]


def test_a_csi_driver_of_somebody_else_is_judged_by_what_runs() -> None:
    one = {"kind": "Deployment", "namespace": "kube-system", "name": "csi-nfs-controller", "release": "", "chart": "",
           "provisioner": "nfs.csi.k8s.io", "image": "registry.k8s.io/sig-storage/nfsplugin:v4.12.1", "server": "",
           "path": "", "selector": {}}  # fmt: skip
    wanted = [{"engine": "csi", "method": "installed"}]
    (found,) = problems(None, {"controllers": [one]}, k8s_storage_provisioners=wanted)
    assert "nfsplugin:v4.12.1" in found and "CVE-2026-3864" in found
    one["image"] = "registry.k8s.io/sig-storage/nfsplugin:v4.13.1"
    assert problems(None, {"controllers": [one]}, k8s_storage_provisioners=wanted) == []


def test_helm_must_be_there() -> None:
    wanted = [{**PROVISIONER, "method": "helm", "chart": "repo/chart"}]
    (found,) = problems(None, {"helm": ""}, k8s_storage_provisioners=wanted)
    assert "helm is not installed" in found
    assert problems(None, {"helm": "/usr/bin/helm"}, k8s_storage_provisioners=wanted) == []


@pytest.mark.parametrize(
    ("pattern", "allowed", "words"),
    [
        (f"{SAFE}/..", True, 'leads out of the share by ".."'),
        (f"team/{SAFE}", False, "has more than one path part"),
        ("${.PVC.name}", False, 'the last part of "${.PVC.name}" lacks ${.PVC.namespace}'),
        ("${.PVC.namespace}", False, "lacks ${.PVC.name}"),
        ("", False, "lacks ${.PVC.namespace} and ${.PVC.name}"),
        (f"{SAFE}/", False, "has more than one path part"),
    ],
)
def test_patterns_by_which_directories_get_lost_are_refused(pattern: str, allowed: bool, words: str) -> None:
    one = {"name": "c", "parameters": {"pathPattern": pattern}, "allow_path_pattern": allowed}
    found = problems(k8s_storage_classes=[one], k8s_storage_provisioners=[PROVISIONER])
    assert all(line.startswith("localhost: k8s_storage_classes[0].parameters.pathPattern: ") for line in found)
    assert words in found[0]


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [(SAFE, False), (f"{SAFE}-${{.PVC.annotations.nfs.io/storage-path}}", False), ("a/${.PVC.name}", True)],
)
def test_other_patterns_are_taken(pattern: str, allowed: bool) -> None:
    one = {"name": "c", "parameters": {"pathPattern": pattern}, "allow_path_pattern": allowed}
    assert problems(k8s_storage_classes=[one]) == []


def test_what_deletes_at_once_and_what_enforces_nothing_is_noted() -> None:
    one = {"name": "c", "reclaim_policy": "Delete", "parameters": {"archiveOnDelete": "false"}}
    found = notes(k8s_storage_classes=[one], k8s_storage_provisioners=[PROVISIONER])
    assert "is gone at once when the claim is deleted" in found[0]
    assert 'nothing enforces the size of a volume of class "c"' in found[1]
    quiet = {**one, "parameters": {}, "allow_volume_expansion": False}
    assert notes(k8s_storage_classes=[quiet], k8s_storage_provisioners=[PROVISIONER]) == []


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, "archived"),
        ({"archiveOnDelete": "true"}, "archived"),
        ({"archiveOnDelete": "False"}, "removed"),
        ({"archiveOnDelete": "true", "onDelete": "delete"}, "removed"),
        ({"archiveOnDelete": "false", "onDelete": "retain"}, "kept"),
        ({"onDelete": "nonsense"}, "archived"),
    ],
)
def test_the_fate_of_a_directory(parameters: dict[str, str], found: str) -> None:
    assert _provisioner_inputs.fate(parameters) == found


# Charts ----------------------------------------------------------------------------------------------


def release(one: dict[str, Any], registry: str = "") -> dict[str, Any]:
    result = check(k8s_storage_provisioners=[one], k8s_storage_image_registry=registry)
    assert result["problems"] == []
    (found,) = result["cluster"]["releases"]
    return dict(found)


def test_a_chart_of_the_subdir_provisioner_gets_what_the_manifests_get() -> None:
    one = {**PROVISIONER, "method": "helm", "chart": "repo/chart", "values": {"nfs": {"mountOptions": ["hard"]}}}
    found = release(one)
    assert (found["name"], found["namespace"], found["version"]) == ("nfs-client-provisioner", "nfs-provisioner", "")
    values = found["values"]
    assert values["nfs"] == {"server": "192.0.2.1", "path": "/nfs/dpv", "mountOptions": ["hard"]}
    assert values["storageClass"] == {"create": False, "provisionerName": "fuseim.pri/ifs"}
    assert values["image"] == {
        "repository": "registry.k8s.io/sig-storage/nfs-subdir-external-provisioner",
        "tag": "v4.0.2",
    }
    over = release({**one, "values": {"replicaCount": 3, "nfs": {"path": "/other"}}})["values"]
    assert (over["replicaCount"], over["nfs"]["path"]) == (3, "/other")


def test_images_of_charts_come_from_the_registry() -> None:
    registry = "registry.example.org:5000/mirror"
    one = {**PROVISIONER, "method": "helm", "chart": "repo/chart", "values": {"sidecar": {"image": "quay.io/a/b:v1"}}}
    values = release(one, registry)["values"]
    assert values["image"]["repository"] == f"{registry}/sig-storage/nfs-subdir-external-provisioner"
    assert values["sidecar"]["image"] == f"{registry}/a/b:v1"
    own = {"image": {"nfs": {"repository": "/sig-storage/nfsplugin"}, "baseRepo": "quay.io"},
           "list": [{"image": "docker.io/library/busybox"}, 1]}  # fmt: skip
    csi = release({**CSI, "values": own}, f"{registry}/")["values"]
    assert csi["image"] == {"baseRepo": registry, "nfs": {"repository": "/sig-storage/nfsplugin"}}
    assert csi["list"] == [{"image": f"{registry}/library/busybox"}, 1]


def test_the_csi_driver_gets_its_name_and_its_classes_their_share() -> None:
    one = {**CSI, "server": "192.0.2.1", "path": "/nfs/csi", "snapshot_classes": [{"name": "snap"}]}
    classes = [
        {"name": "csi", "provisioner": "nfs.csi.k8s.io"},
        {"name": "other", "provisioner": "nfs.csi.k8s.io", "parameters": {"server": "192.0.2.1", "Share": "/nfs/b"}},
    ]
    result = check(k8s_storage_provisioners=[one], k8s_storage_classes=classes)
    assert result["problems"] == []
    assert result["cluster"]["provisioners"][0]["provisioner_name"] == "nfs.csi.k8s.io"
    assert [each["parameters"] for each in result["cluster"]["classes"]] == [
        {"server": "192.0.2.1", "share": "/nfs/csi"},
        {"server": "192.0.2.1", "Share": "/nfs/b"},
    ]
    # What they need on the server is derived.
    assert [each["path"] for each in result["servers"]["server1"]["directories"]] == ["/nfs/b", "/nfs/csi"]
    values = result["cluster"]["releases"][0]["values"]
    assert values["driver"] == {"name": "nfs.csi.k8s.io"}
    assert values["storageClass"] == {"create": False}


def test_a_csi_volume_lies_where_its_attributes_say() -> None:
    attributes = {"server": "192.0.2.1", "share": "/nfs/csi/", "subDir": "a/b"}
    one = {"name": "v", "capacity": "1Gi", "storage_class": "nfs", "csi": {"handle": "h", "attributes": attributes}}
    result = check(k8s_storage_volumes=[one], k8s_storage_claims=[claim()])
    assert result["problems"] == []
    assert [use["path"] for use in result["uses"]] == ["/nfs/csi/a/b"]
    attributes = {"SERVER": "192.0.2.1", "Share": "/nfs/csi", "subdir": "a"}
    uses = check(k8s_storage_volumes=[{**one, "csi": {"handle": "h", "attributes": attributes}}])["uses"]
    assert [use["path"] for use in uses] == ["/nfs/csi/a"]
    foreign = {**one, "csi": {"driver": "example.org/x", "handle": "h"}}
    assert check(k8s_storage_volumes=[foreign])["uses"] == []
    (found,) = problems(k8s_storage_volumes=[{**one, "server": "192.0.2.1"}])
    assert "has csi, whose attributes say where it lies; leave server out" in found
    (found,) = problems(k8s_storage_volumes=[{**one, "csi": {"handle": "h", "attributes": {"share": 1}}}])
    assert ".csi.attributes.share: 1 is not a string" in found
    found_two = problems(k8s_storage_volumes=[{"name": "v", "capacity": "1Gi"}])
    assert [line.rpartition(": ")[2] for line in found_two] == ['is missing in "v"'] * 2


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("busybox", ("busybox", "")),
        ("localhost:5000/a", ("localhost:5000/a", "")),
        ("r.example/a/b:v1", ("r.example/a/b", "v1")),
        ("r.example/a:v1@sha256:0f", ("r.example/a", "v1@sha256:0f")),
    ],
)
def test_images_are_split(image: str, parts: tuple[str, str]) -> None:
    assert _charts.split_image(image) == parts


trees = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_what_the_user_says_goes_over_what_is_filled_in(below: dict[str, Any], above: dict[str, Any]) -> None:
    found = _charts.merged(below, above)
    assert set(found) == {*below, *above}
    assert _charts.merged(found, above) == found
    assert {key: found[key] for key in set(below) - set(above)} == {key: below[key] for key in set(below) - set(above)}
    assert all(found[key] == value for key, value in above.items() if not isinstance(value, dict))


@given(st.from_regex(r"(([a-z]+\.[a-z]+|localhost)(:[0-9]+)?/)?[a-z]+(/[a-z]+)?(:v[0-9])?", fullmatch=True))
def test_an_image_is_rewritten_once(image: str) -> None:
    found = _cluster.rewritten(image, "r.example.org/m")
    assert found.startswith("r.example.org/m/")
    assert _cluster.rewritten(image, "") == image
