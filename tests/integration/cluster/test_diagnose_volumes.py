# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose: claims, and the volumes that they want or have."""

from __future__ import annotations

import functools

import pytest

from .cluster import PROVISIONER, Cluster, volume
from .diagnosis import STOPPED, answer, diagnose, make_claim, make_class

# Minutes of waiting for controllers.
pytestmark = pytest.mark.long


# Claims and volumes made by hand --------------------------------------------------------------------------


def test_classes_that_are_missing(clean: Cluster) -> None:
    clean.make_volume("other", storage_class="nfs")
    clean.wait(lambda: clean.phase("other") == "Available")
    make_claim(clean, "none", storageClassName="")
    make_claim(clean, "unset")
    make_claim(clean, "typo", storageClassName="nsf-fast")
    make_class(clean, "nfs-fast")
    answer(clean, "none", "no-class", 'storageClassName ""')
    found = answer(clean, "unset", "no-default-class", "names no class")
    assert "other (class nfs) would fit" in found["evidence"]
    answer(clean, "typo", "class-unknown", "nsf-fast", "(nfs-fast?)")
    # With a default class the controller gives it to the claim, which then waits for its provisioner.
    make_class(clean, "usual", default=True)
    clean.wait(lambda: clean.claim("unset")["spec"].get("storageClassName") == "usual", 90)
    answer(clean, "unset", "provisioner-not-running", PROVISIONER)


def test_volumes_that_do_not_fit_say_by_what(clean: Cluster) -> None:
    clean.make_volume("small", storage_class="nfs", labels={"pv": "small"})
    clean.wait(lambda: clean.phase("small") == "Available")
    make_claim(clean, "large", storageClassName="nfs", resources={"requests": {"storage": "5Gi"}})
    make_claim(clean, "modes", storageClassName="nfs", accessModes=["ReadWriteOnce"])
    make_claim(clean, "labels", storageClassName="nfs", selector={"matchLabels": {"pv": "other"}})
    make_claim(clean, "classes", storageClassName="else", selector={"matchLabels": {"pv": "small"}})
    make_claim(clean, "blocks", storageClassName="nfs", volumeMode="Block")
    make_claim(
        clean, "both", storageClassName="nfs", accessModes=["ReadOnlyMany"], resources={"requests": {"storage": "9Gi"}}
    )
    found = answer(clean, "large", "volume-mismatch-size", "asks for 5Gi", "small has 1Gi")
    assert found["evidence"] == ["size: the claim asks for 5Gi, small has 1Gi"]
    answer(clean, "modes", "volume-mismatch-access-modes", "ReadWriteOnce")
    answer(clean, "labels", "volume-mismatch-selector", "pv=other")
    answer(clean, "classes", "volume-mismatch-class", "class else", "class nfs")
    answer(clean, "blocks", "volume-mismatch-volume-mode", "volumeMode")
    answer(clean, "both", "volume-mismatch", "size, access-modes")
    # What the answers say helps.
    clean.patch("/api/v1/persistentvolumes/small", {"metadata": {"labels": {"pv": "other"}}})
    clean.wait_bound("labels")
    assert not [one for one in diagnose(clean) if one["object"]["name"] == "labels"]
    answer(clean, "large", "no-volume-left", "in use")


def test_volumes_of_somebody_else(clean: Cluster) -> None:
    clean.make_released(["old"], storage_class="nfs")
    make_claim(clean, "heir", storageClassName="nfs")
    found = answer(clean, "heir", "volume-released", "volume old, which is Released")
    assert "old is Released, last claimed by default/claim-old" in found["evidence"]
    # The playbook that it names helps.
    done = clean.direct("pv_reclaim", volumes=["old"], release="open", wait=True)
    assert done["summary"]["changed"] == 1
    clean.wait_bound("heir")
    body = volume("kept", storage_class="kept")
    body["spec"]["claimRef"] = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "owner"}
    clean.done("POST", "/api/v1/persistentvolumes", body)
    clean.wait(lambda: clean.phase("kept") == "Available")
    make_claim(clean, "rival", storageClassName="kept")
    make_claim(clean, "by-name", storageClassName="kept", volumeName="kept")
    answer(clean, "rival", "volume-reserved", "reserved for default/owner")
    answer(clean, "by-name", "volume-reserved", "reserved for default/owner")
    make_claim(clean, "owner", storageClassName="kept")
    clean.wait_bound("owner")
    answer(clean, "by-name", "volume-taken", "bound to default/owner")
    answer(clean, "rival", "no-volume-left")


def test_a_volume_that_is_named(clean: Cluster) -> None:
    make_claim(clean, "nowhere", storageClassName="nfs", volumeName="typo")
    answer(clean, "nowhere", "volume-missing", "typo", "does not exist")
    clean.make_volume("small", storage_class="nfs")
    make_claim(clean, "large", storageClassName="nfs", volumeName="small", resources={"requests": {"storage": "2Gi"}})
    make_claim(clean, "other-class", storageClassName="", volumeName="small")
    clean.wait(lambda: clean.phase("small") == "Available")
    answer(clean, "large", "volume-mismatch-size", "asks for 2Gi")
    answer(clean, "other-class", "volume-mismatch-class", "no class", "class nfs")
    clean.make_released(["gone"], storage_class="nfs")
    make_claim(clean, "late", storageClassName="nfs", volumeName="gone")
    answer(clean, "late", "volume-released", "gone, which is Released")


def test_a_reserved_volume_that_is_too_small(clean: Cluster) -> None:
    body = volume("mine", storage_class="nfs")
    body["spec"]["claimRef"] = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "large"}
    clean.done("POST", "/api/v1/persistentvolumes", body)
    make_claim(clean, "large", storageClassName="nfs", resources={"requests": {"storage": "2Gi"}})
    answer(clean, "large", "volume-mismatch-size", "volume mine has 1Gi")


def test_a_claim_that_waits_for_its_pod_is_no_fault_unless_somebody_asks(clean: Cluster) -> None:
    make_class(clean, "late", volumeBindingMode="WaitForFirstConsumer")
    make_claim(clean, "waits", storageClassName="late")
    assert diagnose(clean) == []
    answer(clean, "waits", "waits-for-pod", "start the pod", namespace="default", claim="waits")


def test_capacities_that_disagree(clean: Cluster) -> None:
    make_class(clean, "grows", allowVolumeExpansion=True)
    clean.make_bound("patched", storage_class="nfs")
    clean.make_bound("asked", storage_class="grows")
    assert diagnose(clean) == []
    clean.patch("/api/v1/persistentvolumes/patched", {"spec": {"capacity": {"storage": "30Gi"}}})
    wanted = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    clean.patch("/api/v1/namespaces/default/persistentvolumeclaims/asked", wanted)
    answer(clean, "patched", "capacity-disagrees", "says 1Gi", "30Gi")
    answer(clean, "asked", "capacity-disagrees", "asks for 2Gi but has 1Gi")
    claims = [
        {"namespace": "default", "name": "asked", "size": "2Gi"},
        {"namespace": "default", "name": "patched", "size": "30Gi"},
    ]
    assert not clean.direct("pvc_expand", claims=claims).get("failed")
    assert diagnose(clean) == []


def test_a_claim_that_has_lost_its_volume(clean: Cluster) -> None:
    clean.make_bound("lost", storage_class="nfs")
    clean.done("DELETE", "/api/v1/persistentvolumes/lost")
    clean.patch("/api/v1/persistentvolumes/lost", {"metadata": {"finalizers": None}})
    clean.wait(lambda: clean.claim("lost")["status"]["phase"] == "Lost")
    found = answer(clean, "lost", "claim-lost", "whose object is gone")
    assert any("lost its PersistentVolume" in one for one in found["evidence"])


# Volumes --------------------------------------------------------------------------------------------------


def is_available(cluster: Cluster, volume: str) -> bool:
    return cluster.phase(volume) == "Available"


def test_volumes_that_failed(clean: Cluster) -> None:
    clean.make_released(["by-hand"], policy="Delete")
    clean.wait(lambda: clean.phase("by-hand") == "Failed")
    found = answer(clean, "by-hand", "volume-failed-no-deleter", "made by hand", "Retain")
    assert any("status.message" in one for one in found["evidence"])


def test_released_with_policy_delete_and_nobody_there(clean: Cluster) -> None:
    clean.make_released(["lurking"], policy="Delete", provisioner=STOPPED)
    answer(clean, "lurking", "released-delete-without-provisioner", STOPPED, "starting it destroys the data")
    # What it advises is all it takes.
    clean.direct("pv_reclaim", volumes=["lurking"], policy="Retain")
    assert diagnose(clean) == []


def test_volumes_that_are_being_deleted(clean: Cluster) -> None:
    clean.make_bound("used", storage_class="nfs")
    clean.done("DELETE", "/api/v1/persistentvolumes/used")
    found = answer(clean, "used", "volume-terminating-in-use", "default/used", "its data stays")
    assert "kubernetes.io/pv-protection" in found["evidence"][0]
    csi = "external-provisioner.volume.kubernetes.io/finalizer"
    source = {"csi": {"driver": "csi.example.com", "volumeHandle": "x"}}
    for name, finalizer, where in (("held", "example.com/backup", None), ("csi", csi, source)):
        body = volume(name, source=where)
        body["metadata"]["finalizers"] = [finalizer]
        clean.done("POST", "/api/v1/persistentvolumes", body)
        clean.wait(functools.partial(is_available, clean, name))
        clean.done("DELETE", f"/api/v1/persistentvolumes/{name}")
    # A controller gets half a minute for its work.
    clean.wait(lambda: len(diagnose(clean)) == 3, 60)
    answer(clean, "held", "volume-terminating-finalizer", "example.com/backup", "do not remove it by hand")
    found = answer(clean, "csi", "volume-terminating-provisioner", csi, "csi.example.com")
    assert found["certainty"] == "certain"
    for name in ("held", "csi"):
        clean.patch(f"/api/v1/persistentvolumes/{name}", {"metadata": {"finalizers": None}})
