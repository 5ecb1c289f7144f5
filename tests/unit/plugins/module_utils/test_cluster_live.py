# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted compared with what is there: nothing is sent that the API refuses, or that costs data."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _cluster_differences, _cluster_live
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PREVIOUS_POLICY, PROVISIONED_BY
from ansible_collections.clusterkit.storage.tests.inputs import PROVISIONER, check, claim, notes, problems, volume
from hypothesis import given
from hypothesis import strategies as st

NAME = "fuseim.pri/ifs"


def live_class(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "provisioner": NAME, "reclaimPolicy": "Retain", **more}


def live_volume(name: str = "v1", phase: str = "Bound", held: str = "", by: str = "", **spec: Any) -> dict[str, Any]:
    annotations = {key: value for key, value in ((PREVIOUS_POLICY, held), (PROVISIONED_BY, by)) if value}
    return {
        "metadata": {"name": name, "labels": {}, "annotations": annotations},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "nfs",
            "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": "192.0.2.1", "path": f"/nfs/{name}"},
            **spec,
        },
        "status": {"phase": phase},
    }


def live_claim(phase: str = "Bound", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "c1", "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "nfs",
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": "v1",
            **spec,
        },
        "status": {"phase": phase},
    }


def controller(**more: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "namespace": "nfs-provisioner",
        "name": "nfs-client-provisioner",
        "provisioner": NAME,
        "image": "registry.k8s.io/sig-storage/nfs-subdir-external-provisioner:v4.0.2",
        "server": PROVISIONER["server"],
        "path": PROVISIONER["path"],
        "selector": {"app": "nfs-client-provisioner"},
        "release": "",
        "chart": "",
        **more,
    }


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [
        ({"provisioner": "a/b"}, {}, '.provisioner: StorageClass "c" has "a/b", here "fuseim.pri/ifs"'),
        ({"reclaimPolicy": None}, {}, '.reclaim_policy: StorageClass "c" has "Delete", here "Retain"'),
        (
            {"volumeBindingMode": "WaitForFirstConsumer"},
            {},
            '.volume_binding_mode: StorageClass "c" has "WaitForFirstConsumer", here "Immediate"',
        ),
        (
            {"parameters": {"archiveOnDelete": "true"}},
            {"parameters": {"archiveOnDelete": "false"}},
            '.parameters.archiveOnDelete: StorageClass "c" has "true", here "false"',
        ),
        (
            {"parameters": {"onDelete": "retain"}},
            {},
            '.parameters.onDelete: StorageClass "c" has "retain", here nothing',
        ),
    ],
)
def test_what_cannot_be_changed_in_a_class_is_said_with_both_values(
    live: dict[str, Any], wanted: dict[str, Any], words: str
) -> None:
    (found,) = problems(None, {"storage_classes": [live_class(**live)]}, k8s_storage_classes=[{"name": "c", **wanted}])
    assert found.startswith("localhost: k8s_storage_classes[0]") and words in found
    assert "say allow_recreate: true" in found


def test_a_class_that_may_be_made_again_is_and_the_volumes_whose_fate_changes_are_listed() -> None:
    live = {
        "storage_classes": [live_class(parameters={"archiveOnDelete": "true"})],
        "volumes": [
            live_volume("pvc-1", by=NAME, storageClassName="c", persistentVolumeReclaimPolicy="Delete"),
            live_volume("pvc-2", by=NAME, storageClassName="c"),
        ],
    }
    wanted = {"name": "c", "allow_recreate": True, "parameters": {"archiveOnDelete": "false"}}
    result = check(None, live, k8s_storage_classes=[wanted], k8s_storage_provisioners=[PROVISIONER])
    assert result["problems"] == []
    assert (result["cluster"]["recreate"], result["cluster"]["hold_classes"]) == (["c"], ["c"])
    assert result["cluster"]["restore"] == [NAME]
    said = " ".join(one["message"] for one in result["notes"])
    assert 'parameters.archiveOnDelete "true" becomes "false"' in said
    assert "archived until now when their claim is deleted, are then removed: pvc-1" in said
    assert "pvc-2" not in said
    # With the same fate, no volume is named.
    live["storage_classes"][0]["parameters"] = {"archiveOnDelete": "0"}
    assert "pvc-1" not in " ".join(
        notes(None, live, k8s_storage_classes=[wanted], k8s_storage_provisioners=[PROVISIONER])
    )


def test_volumes_of_a_class_that_gets_another_provisioner_have_their_policies_back_in_the_same_run() -> None:
    volumes = [
        live_volume("pvc-1", by=NAME, storageClassName="c", persistentVolumeReclaimPolicy="Delete"),
        live_volume("by-hand", storageClassName="c", persistentVolumeReclaimPolicy="Recycle"),
    ]
    other = {**PROVISIONER, "name": "other", "provisioner_name": "example.org/other"}
    result = check(
        None,
        {"storage_classes": [live_class()], "volumes": volumes},
        k8s_storage_classes=[{"name": "c", "provisioner": "example.org/other", "allow_recreate": True}],
        k8s_storage_provisioners=[PROVISIONER, other],
    )
    assert result["problems"] == []
    assert result["cluster"]["hold_classes"] == ["c"]
    # Both, and nothing that was made by hand: what is held is put back, or would be held for ever.
    assert result["cluster"]["hold_made_by"] == result["cluster"]["restore"] == ["example.org/other", NAME]


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [
        (
            live_volume(nfs={"server": "192.0.2.9", "path": "/nfs/v1"}),
            volume(),
            '.server: PersistentVolume "v1" has "192.0.2.9", here "192.0.2.1"',
        ),
        (live_volume(), volume(path="/nfs/b"), '.path: PersistentVolume "v1" has "/nfs/v1", here "/nfs/b"'),
        (live_volume(capacity={"storage": "2Gi"}), volume(), "has 2Gi, here 1Gi; a volume in use never shrinks"),
        (
            live_volume(phase="Released"),
            volume(reclaim_policy="Recycle"),
            "is Released with policy Retain: Recycle would take effect on its content now",
        ),
        (
            live_volume(claimRef={"namespace": "shop", "name": "old"}),
            volume(claim_ref={"name": "new"}),
            "belongs to claim shop/old, here default/new; release it first",
        ),
        (
            live_volume(),
            {"name": "v1", "capacity": "1Gi", "storage_class": "nfs", "csi": {"handle": "h"}},
            '.csi.driver: PersistentVolume "v1" has nothing, here "nfs.csi.k8s.io"',
        ),
    ],
)
def test_what_cannot_be_changed_in_a_volume_is_said(live: dict[str, Any], wanted: dict[str, Any], words: str) -> None:
    found = problems(None, {"volumes": [live]}, k8s_storage_volumes=[wanted])
    assert found and all(line.startswith("localhost: k8s_storage_volumes[0].") for line in found)
    assert words in found[0]


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        (live_volume(capacity={"storage": "500Mi"}), volume()),
        (live_volume(phase="Available", capacity={"storage": "2Gi"}), volume()),
        (live_volume(persistentVolumeReclaimPolicy="Delete"), volume()),
        (live_volume(phase="Released", persistentVolumeReclaimPolicy="Delete"), volume()),
        (live_volume(claimRef={"namespace": "default", "name": "c1"}), volume(claim_ref={"name": "c1"})),
    ],
)
def test_what_can_be_repaired_in_a_volume_is_no_problem(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert problems(None, {"volumes": [live]}, k8s_storage_volumes=[wanted]) == []


def test_a_released_volume_is_noted() -> None:
    found = notes(None, {"volumes": [live_volume(phase="Released")]}, k8s_storage_volumes=[volume()])
    assert "no claim gets it before the playbook reclaim releases it" in found[0]


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [
        (live_claim(), claim(access_modes=["ReadWriteOnce"]), 'has ["ReadWriteMany"], here ["ReadWriteOnce"]'),
        (live_claim(storageClassName="old"), claim(), 'has "old", here "nfs"'),
        (live_claim(), claim(volume_name="v2"), 'has "v1", here "v2"'),
        (live_claim(selector={"matchLabels": {"a": "b"}}), claim(), 'has {"matchLabels": {"a": "b"}}, here {}'),
        (live_claim(), claim(request="500Mi"), "asks for 1Gi, here 500Mi; a claim never shrinks"),
        (live_claim(), claim(request="2Gi"), "it cannot grow since its class does not allow expansion"),
        (live_claim(phase="Pending"), claim(request="2Gi"), "it cannot grow since it is Pending, not Bound"),
    ],
)
def test_what_cannot_be_changed_in_a_claim_is_said(live: dict[str, Any], wanted: dict[str, Any], words: str) -> None:
    volumes = [volume(capacity="5Gi", access_modes=["ReadWriteMany", "ReadWriteOnce"]), volume("v2", capacity="5Gi")]
    found = problems(None, {"claims": [live]}, k8s_storage_volumes=volumes, k8s_storage_claims=[wanted])
    assert len(found) == 1 and words in found[0], found
    assert "PersistentVolumeClaim default/c1" in found[0]


def test_a_claim_whose_class_allows_it_may_grow_and_what_kubernetes_chose_is_left_alone() -> None:
    live = {
        "claims": [live_claim(storageClassName="c")],
        "storage_classes": [live_class(allowVolumeExpansion=True)],
        "volumes": [live_volume(storageClassName="c", capacity={"storage": "5Gi"})],
    }
    wanted = claim(request="2Gi", storage_class=None, volume_name="v1")
    result = check(None, live, k8s_storage_claims=[{**wanted, "storage_class": "c"}])
    assert result["problems"] == []
    assert "grows from 1Gi to 2Gi" in result["notes"][0]["message"]
    same = claim(storage_class="c")
    assert problems(None, live, k8s_storage_claims=[same]) == []


def test_volumes_that_a_new_provisioner_would_destroy_stop_the_run() -> None:
    doomed = live_volume("pvc-1", phase="Released", by=NAME, persistentVolumeReclaimPolicy="Delete")
    kept = live_volume("pvc-2", phase="Released", by=NAME)
    live = {"volumes": [doomed, kept], "provisioner_states": {NAME: "stopped"}}
    (found,) = problems(None, live, k8s_storage_provisioners=[PROVISIONER])
    assert "as soon as it runs: pvc-1; set Retain first" in found
    allowed = {"k8s_storage_provisioners": [PROVISIONER], "k8s_storage_allow_delete_released": True}
    assert problems(None, live, **allowed) == []
    fresh = {**live, "provisioner_states": {NAME: "running"}}  # its lock, and nobody is there any more
    assert problems(None, fresh, k8s_storage_provisioners=[PROVISIONER]) == [found]
    assert problems(None, {**fresh, "controllers": [controller()]}, k8s_storage_provisioners=[PROVISIONER]) == []
    assert problems(None, live, k8s_storage_provisioners=[{**PROVISIONER, "method": "installed"}]) == []


@pytest.mark.parametrize(
    ("live", "words"),
    [
        ({"image": "old:v1"}, 'image "old:v1" becomes "registry.k8s.io/'),
        ({"server": "192.0.2.9"}, 'server "192.0.2.9" becomes "192.0.2.1"'),
        ({"path": "/old"}, 'path "/old" becomes "/nfs/dpv"'),
        ({"provisioner": "a/b"}, 'provisioner_name "a/b" becomes "fuseim.pri/ifs"'),
    ],
)
def test_an_upgrade_holds_the_volumes(live: dict[str, Any], words: str) -> None:
    one = controller(**live)
    volumes = [live_volume(f"pvc-{number:02d}", by=one["provisioner"], persistentVolumeReclaimPolicy="Delete")
               for number in range(30)]  # fmt: skip
    result = check(None, {"controllers": [one], "volumes": volumes}, k8s_storage_provisioners=[PROVISIONER])
    assert result["problems"] == []
    assert result["cluster"]["hold_provisioners"] == [one["provisioner"]]
    said = result["notes"][0]["message"]
    assert words in said
    assert said.endswith("pvc-19 and 10 more")


def test_without_a_change_nothing_is_held() -> None:
    result = check(None, {"controllers": [controller()]}, k8s_storage_provisioners=[PROVISIONER])
    assert (result["cluster"]["hold_provisioners"], result["cluster"]["restore"]) == ([], [])


def test_what_an_upgrade_has_held_is_put_back_by_the_next_run_and_what_was_released_is_named() -> None:
    volumes = [live_volume("a", held="Delete", by=NAME), live_volume("b", phase="Released", held="Delete", by=NAME)]
    result = check(None, {"volumes": volumes}, k8s_storage_provisioners=[PROVISIONER])
    assert result["cluster"]["restore"] == [NAME]
    assert [one["message"] for one in result["notes"] if "keep Retain: b" in one["message"]]
    result = check(None, {"volumes": volumes[1:]}, k8s_storage_provisioners=[PROVISIONER])
    assert result["cluster"]["restore"] == []


def test_two_provisioners_of_one_name_in_the_cluster_are_refused() -> None:
    (found,) = problems(None, {"controllers": [controller(namespace="old")]}, k8s_storage_provisioners=[PROVISIONER])
    assert 'Deployment old/nfs-client-provisioner is a provisioner of the name "fuseim.pri/ifs" already' in found
    installed = {**PROVISIONER, "method": "installed"}
    assert problems(None, {"controllers": [controller()]}, k8s_storage_provisioners=[installed]) == []


def test_a_deployment_with_another_selector_is_named() -> None:
    (found,) = problems(
        None, {"controllers": [controller(selector={"app": "x"})]}, k8s_storage_provisioners=[PROVISIONER]
    )
    assert 'with the selector {"app": "x"}, here {"app": "nfs-client-provisioner"}' in found


def test_the_release_of_a_chart_is_known_by_its_name() -> None:
    chart = {**PROVISIONER, "method": "helm", "chart": "repo/subdir", "chart_version": "4.0.18", "release": "r"}
    one = controller(namespace="x", release="r", chart="subdir-4.0.17", image="whatever")
    result = check(None, {"controllers": [one]}, k8s_storage_provisioners=[chart])
    assert result["problems"] == []
    assert 'chart "subdir-4.0.17" becomes "subdir-4.0.18"' in result["notes"][0]["message"]
    for label in ("subdir-4.0.18", "subdir-v4.0.18", "something-else", ""):
        one["chart"] = label
        assert notes(None, {"controllers": [one]}, k8s_storage_provisioners=[chart]) == []
    archive = {**chart, "chart": "/charts/subdir-4.0.19.tgz", "chart_version": ""}
    one["chart"] = "subdir-4.0.18"
    (found,) = notes(None, {"controllers": [one]}, k8s_storage_provisioners=[archive])
    assert 'chart "subdir-4.0.18" becomes "subdir-4.0.19"' in found
    folder = {**chart, "chart": "/charts/subdir", "chart_version": ""}
    assert notes(None, {"controllers": [one]}, k8s_storage_provisioners=[folder]) == []


def test_a_removal_holds_everything_and_judges_nothing_else() -> None:
    found = _cluster_live.removal(_cluster_of([PROVISIONER], [{"name": "c"}]), lambda *_: None, lambda *_: None)
    assert (found.hold_provisioners, found.hold_classes, found.hold_made_by) == ([NAME], ["c"], [NAME])


def _cluster_of(provisioners: list[dict[str, Any]], classes: list[dict[str, Any]]) -> Any:
    result = check(k8s_storage_provisioners=provisioners, k8s_storage_classes=classes)["cluster"]
    return _cluster_live.Cluster(provisioners=result["provisioners"], classes=result["classes"])


words = st.sampled_from(["", "true", "false", "a"])
parameters = st.dictionaries(st.sampled_from(["archiveOnDelete", "onDelete", "x"]), words)
wanted_classes = st.fixed_dictionaries(
    {
        "provisioner": st.sampled_from(["a/b", "c/d"]),
        "reclaim_policy": st.sampled_from(["Retain", "Delete"]),
        "volume_binding_mode": st.sampled_from(["Immediate", "WaitForFirstConsumer"]),
        "parameters": parameters,
    }
)


@given(wanted_classes, wanted_classes)
def test_differences_are_those_fields_that_differ_and_none_when_it_was_just_made(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    def live(of: dict[str, Any]) -> dict[str, Any]:
        return {
            "provisioner": of["provisioner"],
            "reclaimPolicy": of["reclaim_policy"],
            "volumeBindingMode": of["volume_binding_mode"],
            "parameters": of["parameters"] or None,
        }

    assert _cluster_differences.of_class(one, live(one)) == []
    found = _cluster_differences.of_class(one, live(other))
    assert {key.partition(".")[0] for key, _old, _new in found} == {key for key in one if one[key] != other[key]}
    assert all(old != new for _key, old, new in found)
