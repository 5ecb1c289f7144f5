# SPDX-License-Identifier: GPL-3.0-or-later
"""The role k8s_storage against a real API server: what is made, what is repaired, what is refused, what is kept."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import binaries

from .cluster import Cluster
from .storage_role import (
    CLASS,
    CLASSES,
    DEPLOYMENTS,
    NAME,
    PROVISIONER,
    SERVER,
    Run,
    everything,
    make_class,
    policy,
    provisioned,
    static,
    storage_class,
)

# Many runs of playbooks: minutes.
pytestmark = pytest.mark.long


def test_many_objects_take_as_many_modules_as_two_and_a_second_run_changes_nothing(
    node: Cluster, role: Callable[..., Run]
) -> None:
    wanted = {"provisioners": [PROVISIONER], "classes": [CLASS]}
    checked = role("--check", **wanted, **static(2))
    assert checked.ok, checked.words
    first = role(**wanted, **static(2))
    assert first.ok, first.words
    assert role(**wanted, **static(2)).changes_nothing
    many = role(**wanted, **static(200))
    assert many.ok, many.words
    assert many.modules == first.modules
    node.wait(lambda: all(node.phase(f"static-{number:03d}") == "Bound" for number in range(200)))
    again = role(**wanted, **static(200))
    assert again.changes_nothing, again.words
    assert again.modules == first.modules


def test_one_of_fifty_is_refused_by_the_api_and_the_others_are_made(node: Cluster, role: Callable[..., Run]) -> None:
    wanted = static(50)["volumes"]
    wanted[17]["labels"] = {"tier": "not a label"}
    run = role(volumes=wanted)
    assert not run.ok
    assert "PersistentVolume static-017: " in run.words
    assert "a valid label must be an empty string or consist of alphanumeric characters" in run.words
    assert "static-016:" not in run.words
    assert set(node.volumes()) == {one["name"] for one in wanted} - {"static-017"}


def test_what_cannot_be_changed_is_named_with_old_and_new_value_before_anything_is_sent(
    node: Cluster, role: Callable[..., Run]
) -> None:
    things = static(2)
    assert role(classes=[{**CLASS, "parameters": {"archiveOnDelete": "true"}}], **things).ok
    node.wait_bound("static-000")
    before = everything(node)
    things["volumes"][0]["path"] = "/nfs/elsewhere"
    things["volumes"][1]["labels"] = {"new": "label"}
    things["claims"][0]["access_modes"] = ["ReadWriteOnce"]
    things["claims"][1]["request"] = "500Mi"
    changed = {"parameters": {"archiveOnDelete": "false"}, "reclaim_policy": "Retain"}
    run = role(classes=[{**CLASS, **changed}], **things)
    assert not run.ok
    for words in (
        'k8s_storage_classes[0].parameters.archiveOnDelete: StorageClass "role-test" has "true", here "false"',
        'k8s_storage_classes[0].reclaim_policy: StorageClass "role-test" has "Delete", here "Retain"',
        'k8s_storage_volumes[0].path: PersistentVolume "static-000" has "/nfs/static-000", here "/nfs/elsewhere"',
        'claim default/static-000 has ["ReadWriteMany"], here ["ReadWriteOnce"]'.replace(
            "claim", "PersistentVolumeClaim"
        ),
        "PersistentVolumeClaim default/static-001 asks for 1Gi, here 500Mi; a claim never shrinks",
    ):
        assert words in run.words, run.words
    assert everything(node) == before


def test_a_class_that_is_made_again_costs_no_volume_its_data(
    node: Cluster, role: Callable[..., Run], tmp_path: Path
) -> None:
    """With the lab's provisioner at work, whose share is a local folder."""
    share = tmp_path / "share"
    share.mkdir()
    kept = {"classes": [{**CLASS, "parameters": {"archiveOnDelete": "true"}}]}
    assert role(**kept).ok
    variables = {"PROVISIONER_NAME": NAME, "NFS_SERVER": SERVER, "NFS_PATH": "/nfs/dpv", "KUBECONFIG": node.kubeconfig}
    run = subprocess.Popen(
        [binaries.provisioner() / "provisioner", "-root", share],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for name in ("one", "two"):
            node.make_claim(name, storage_class="role-test")
        for name in ("one", "two"):
            node.wait_bound(name)
        volumes = {name: node.claim(name)["spec"]["volumeName"] for name in ("one", "two")}
        old = storage_class(node, "role-test")["metadata"]["uid"]
        again = [{**CLASS, "parameters": {"archiveOnDelete": "false"}, "allow_recreate": True}]
        checked = role("--check", classes=again, provisioners=[{**PROVISIONER, "method": "installed"}])
        assert checked.ok, checked.words
        assert storage_class(node, "role-test")["metadata"]["uid"] == old
        done = role(classes=again, provisioners=[{**PROVISIONER, "method": "installed"}])
        assert done.ok, done.words
        assert ", ".join(sorted(volumes.values())) + ": set to Retain" in done.words
        made = storage_class(node, "role-test")
        assert made["metadata"]["uid"] != old
        assert made["parameters"] == {"archiveOnDelete": "false"}
        assert {policy(node, name) for name in volumes.values()} == {("Delete", None)}
        assert len(list(share.iterdir())) == 2
    finally:
        run.kill()
        run.wait()


def test_the_default_class_is_taken_from_another_one_only_when_that_is_said(
    node: Cluster, role: Callable[..., Run]
) -> None:
    annotation = "storageclass.kubernetes.io/is-default-class"
    make_class(node, "theirs")
    node.patch(f"{CLASSES}/theirs", {"metadata": {"annotations": {annotation: "true"}}})
    wanted = [{**CLASS, "default": True}]
    refused = role(classes=wanted)
    assert '"theirs" is the default class of the cluster' in refused.words
    taken = role(classes=wanted, allow_take_default=True)
    assert taken.ok, taken.words
    assert storage_class(node, "theirs")["metadata"]["annotations"][annotation] == "false"
    assert role(classes=wanted, allow_take_default=True).changes_nothing
    left = role(classes=[CLASS])
    assert left.ok, left.words
    assert storage_class(node, "role-test")["metadata"]["annotations"][annotation] == "false"
    assert role(classes=[CLASS]).changes_nothing


def test_a_provisioner_that_would_destroy_data_at_once_is_not_started(node: Cluster, role: Callable[..., Run]) -> None:
    node.make_released(["precious"], policy="Delete", provisioner=NAME)
    # One of that name was here a moment ago, and its lock is fresh.
    spec = {"holderIdentity": "somebody", "renewTime": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
    lock = {"metadata": {"name": NAME.replace("/", "-")}, "spec": spec}
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    node.done("POST", leases, lock)
    run = role(provisioners=[PROVISIONER])
    assert "as soon as it runs: precious; set Retain first" in run.words
    assert node.request("GET", f"{DEPLOYMENTS}/role-test")[0] == 404
    node.done("DELETE", f"{leases}/{lock['metadata']['name']}")
    assert node.direct("pv_reclaim", volumes=["precious"], policy="Retain")["summary"]["changed"] == 1
    assert role(provisioners=[PROVISIONER]).ok


def test_an_upgrade_holds_the_volumes_and_puts_their_policies_back(node: Cluster, role: Callable[..., Run]) -> None:
    wanted = {"provisioners": [PROVISIONER], "classes": [CLASS]}
    assert role(**wanted).ok
    names = [f"pvc-{number:02d}" for number in range(50)]
    for name in names:
        provisioned(node, name, policy="Retain" if name == "pvc-49" else "Delete")
    uids = {name: one["metadata"]["uid"] for name, one in node.volumes().items()}
    upgrade = {"provisioners": [{**PROVISIONER, "image": "registry.example.org/provisioner:v5"}], "classes": [CLASS]}
    done = role(**upgrade)
    assert done.ok, done.words
    assert '"role-test" is upgraded: image' in done.words
    assert {policy(node, name) for name in names[:49]} == {("Delete", None)}
    assert policy(node, "pvc-49") == ("Retain", None)
    assert {name: one["metadata"]["uid"] for name, one in node.volumes().items()} == uids
    assert role(**upgrade).changes_nothing
    # An upgrade that was cut short: the next run goes on where it ended. What was released meanwhile is kept.
    held = node.direct(
        "pv_reclaim",
        selection={"provisioners": [NAME], "policies": ["Delete"]},
        policy="Retain",
        keep_previous=True,
    )
    assert held["summary"]["changed"] == 49
    assert policy(node, "pvc-00") == ("Retain", "Delete")
    node.delete_claim("pvc-00")
    node.wait(lambda: node.phase("pvc-00") == "Released")
    after = role(**upgrade)
    assert after.ok, after.words
    assert "keep Retain: pvc-00" in after.words
    assert policy(node, "pvc-00") == ("Retain", "Delete")
    assert {policy(node, name) for name in names[1:49]} == {("Delete", None)}


def test_two_provisioners_of_one_name_are_refused(node: Cluster, role: Callable[..., Run]) -> None:
    assert role(provisioners=[PROVISIONER]).ok
    run = role(provisioners=[{**PROVISIONER, "name": "other"}])
    assert f'Deployment role-test/role-test is a provisioner of the name "{NAME}" already' in run.words
    assert node.request("GET", f"{DEPLOYMENTS}/other")[0] == 404
    assert role(provisioners=[{**PROVISIONER, "name": "other", "method": "installed"}]).changes_nothing


def test_teardown_leaves_data_volumes_and_retain(node: Cluster, role: Callable[..., Run]) -> None:
    wanted = {"provisioners": [PROVISIONER], "classes": [CLASS]}
    assert role(**wanted, **static(2)).ok
    for name in ("pvc-1", "pvc-2", "pvc-3"):
        provisioned(node, name, policy="Retain" if name == "pvc-3" else "Delete")
    variables = {f"k8s_storage_{name}": value for name, value in {**wanted, **static(2)}.items()}
    before, volumes = everything(node), node.volumes()
    shown = node.play("clusterkit.storage.teardown", **variables)
    assert shown.returncode == 0, shown.stdout
    assert "Would be removed (say teardown_confirm=true)" in shown.stdout
    assert "changed=0" in shown.stdout
    assert everything(node) == before
    done = node.play("clusterkit.storage.teardown", teardown_confirm=True, **variables)
    assert done.returncode == 0, done.stdout
    assert "pvc-1, pvc-2: set to Retain" in done.stdout
    assert node.request("GET", f"{DEPLOYMENTS}/role-test")[0] == 404
    assert node.request("GET", f"{CLASSES}/role-test")[0] == 404
    after = node.volumes()
    assert {name: one["metadata"]["uid"] for name, one in after.items()} == {
        name: one["metadata"]["uid"] for name, one in volumes.items()
    }
    assert {one["status"]["phase"] for one in after.values()} == {"Bound"}
    assert [policy(node, f"pvc-{number}") for number in (1, 2, 3)] == [("Retain", "Delete")] * 2 + [("Retain", None)]
    again = node.play("clusterkit.storage.teardown", teardown_confirm=True, **variables)
    assert "changed=0" in again.stdout, again.stdout
    # Installed again: policies as before.
    assert role(**wanted).ok
    assert [policy(node, f"pvc-{number}")[0] for number in (1, 2, 3)] == ["Delete", "Delete", "Retain"]
