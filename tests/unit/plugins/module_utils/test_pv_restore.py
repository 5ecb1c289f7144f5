# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of restored volumes: bound to each other and to nobody else, with policy Retain until they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _pv_restore
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from ansible_collections.clusterkit.storage.tests.api_server_http import serving

REFERENCE = {"namespace": "shop", "name": "data"}
VOLUME = {"metadata": {"name": "pv"}, "spec": {"claimRef": REFERENCE, "persistentVolumeReclaimPolicy": "Delete"}}
CLAIM = {"metadata": {"name": "data", "namespace": "shop"}, "spec": {"volumeName": "pv"}}
CLASS = {"metadata": {"name": "kept"}, "provisioner": "x"}
OBJECTS = {"volume": VOLUME, "claim": CLAIM, "storage_class": CLASS}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as cluster:
        cluster.policies = []  # type: ignore[attr-defined] # for the test alone

        def bind(key: Any) -> None:
            """As the controller of volumes does."""
            volume = cluster.things.get(("persistentvolumes", "", "pv"))
            claim = cluster.things.get(("persistentvolumeclaims", "shop", "data"))
            if not volume or not claim or key[0] not in ("persistentvolumes", "persistentvolumeclaims"):
                return
            if volume["spec"]["claimRef"].get("uid") not in (None, claim["metadata"]["uid"]):
                return
            cluster.policies.append(volume["spec"]["persistentVolumeReclaimPolicy"])  # type: ignore[attr-defined] # as above
            if (volume.get("status") or {}).get("phase") != "Bound":
                reference = {"claimRef": {"uid": claim["metadata"]["uid"]}}
                cluster.change("persistentvolumes", "pv", {"status": {"phase": "Bound"}, "spec": reference})
                cluster.change("persistentvolumeclaims", "data", {"status": {"phase": "Bound"}}, "shop")

        cluster.controller = bind
        yield cluster


def step(**more: Any) -> dict[str, Any]:
    return {
        "id": "1", "item": "shop/data", "claim": {**REFERENCE, "volume": "pv"}, "objects": OBJECTS, "policy": "Delete",
        "precondition": {}, **more,
    }  # fmt: skip


def test_everything_is_made_on_an_emptied_cluster(cluster: Cluster) -> None:
    (checked,) = _pv_restore.bind(client(cluster, dry_run=True), [step()], 5)
    assert checked["state"] == "bound"
    assert ("persistentvolumes", "", "pv") not in cluster.things
    (done,) = _pv_restore.bind(client(cluster), [step()], 5)
    assert (done["state"], done["reason"]) == ("bound", "")
    volume, claim = cluster.get("persistentvolumes", "pv"), cluster.get("persistentvolumeclaims", "data", "shop")
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    # Until both were bound, deleting the claim would not have taken the data with it.
    assert cluster.policies[0] == "Retain"  # type: ignore[attr-defined] # as above
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert cluster.get("storageclasses", "kept")["provisioner"] == "x"
    (again,) = _pv_restore.bind(client(cluster), [step()], 5)
    assert again["state"] == "unchanged"


@pytest.mark.parametrize("fate", ["lost", "error after", "dropped", "unavailable"])
def test_answers_that_get_lost_make_nothing_twice(cluster: Cluster, fate: str) -> None:
    left = [fate] * 3
    cluster.fate = lambda method, _path: left.pop() if left and method == "POST" else ""
    (done,) = _pv_restore.bind(client(cluster), [step()], 5)
    assert done["state"] == "bound", done
    assert len([key for key in cluster.things if key[0] == "persistentvolumes"]) == 1


def test_a_released_volume_is_for_the_claim_of_its_old_name(cluster: Cluster) -> None:
    cluster.add("namespaces", "shop")
    cluster.add(
        "persistentvolumes", "pv", uid="u", status={"phase": "Released"},
        spec={"claimRef": {**REFERENCE, "uid": "old"}, "persistentVolumeReclaimPolicy": "Delete"},
    )  # fmt: skip
    (done,) = _pv_restore.bind(client(cluster), [step(objects={"claim": CLAIM})], 5)
    assert done["state"] == "bound", done
    assert cluster.policies[0] == "Retain"  # type: ignore[attr-defined] # as above


def test_a_claim_that_has_lost_its_volume_is_bound_by_its_uid(cluster: Cluster) -> None:
    cluster.add("namespaces", "shop")
    cluster.add("persistentvolumeclaims", "data", "shop", uid="c", spec={"volumeName": "pv"}, status={"phase": "Lost"})
    (done,) = _pv_restore.bind(client(cluster), [step(objects={"volume": VOLUME})], 5)
    assert done["state"] == "bound", done
    made = next(one for one in cluster.history if one[1][0] == "persistentvolumes")
    assert made[3]["spec"]["claimRef"]["uid"] == "c"


def test_what_belongs_to_others_or_is_gone_is_left_alone(cluster: Cluster) -> None:
    (gone,) = _pv_restore.bind(client(cluster), [step(objects={})], 1)
    assert (gone["state"], gone["reason"]) == ("failed", "volume pv is gone")
    cluster.add("persistentvolumes", "pv", spec={"claimRef": {"namespace": "other", "name": "x", "uid": "y"}})
    (taken,) = _pv_restore.bind(client(cluster), [step()], 1)
    assert taken["reason"] == "volume pv belongs to other/x now"
    cluster.change("persistentvolumes", "pv", {"spec": {"claimRef": {**REFERENCE, "uid": None}}})
    (claimless,) = _pv_restore.bind(client(cluster), [step(objects={})], 1)
    assert claimless["reason"] == "claim shop/data is gone"


def test_what_is_not_bound_in_time_keeps_its_data(cluster: Cluster) -> None:
    cluster.controller = lambda _key: None
    (late,) = _pv_restore.bind(client(cluster), [step()], 0)
    assert late["reason"] == "not bound in time: volume gone, claim gone; the policy stays Retain"
    assert cluster.get("persistentvolumes", "pv")["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    cluster.change("persistentvolumes", "pv", {"status": {"phase": "Bound"}})
    other = {"spec": {"volumeName": "other"}, "status": {"phase": "Bound"}}
    cluster.change("persistentvolumeclaims", "data", other, "shop")
    (elsewhere,) = _pv_restore.bind(client(cluster), [step()], 1)
    assert elsewhere["reason"] == "the claim is bound to other"


def test_a_namespace_that_cannot_be_made_fails_its_steps_alone(cluster: Cluster) -> None:
    cluster.fate = lambda method, path: "forbidden" if method == "POST" and path.endswith("/namespaces") else ""
    unclaimed = step(
        id="2", item="pv-2", claim={"namespace": "", "name": "", "volume": "pv-2"}, policy="Retain",
        objects={"volume": {"metadata": {"name": "pv-2"}, "spec": {}}},
    )  # fmt: skip
    refused, done = _pv_restore.bind(client(cluster), [step(), unclaimed], 1)
    assert "namespace shop cannot be made: create namespaces: not allowed" in refused["reason"]
    assert done["state"] == "bound"
    cluster.fate = lambda method, path: "forbidden" if method == "GET" and "persistentvolumes/" in path else ""
    assert "not allowed" in _pv_restore.bind(client(cluster), [step()], 1)[0]["reason"]
    assert _pv_restore.check(client(cluster), [step()])[0]["state"] == "failed"
    cluster.fate = lambda method, path: "forbidden" if method == "POST" and path.endswith("volumes") else ""
    assert "not allowed" in _pv_restore.bind(client(cluster), [step()], 1)[0]["reason"]


def test_before_the_data_is_touched_all_must_be_as_it_was_planned(cluster: Cluster) -> None:
    api = client(cluster)
    assert _pv_restore.check(api, [step()])[0]["state"] == "ready"
    (gone,) = _pv_restore.check(api, [step(precondition={"uid": "u"})])
    assert gone["reason"] == "volume pv is gone since the plan was made; make a new plan"
    cluster.add("persistentvolumes", "pv", uid="other", spec={})
    assert "volume pv was made since" in _pv_restore.check(api, [step()])[0]["reason"]
    (anew,) = _pv_restore.check(api, [step(precondition={"uid": "u"})])
    assert (anew["state"], "deleted and made again" in anew["reason"]) == ("stale", True)
    cluster.controller = lambda _key: None
    cluster.add("persistentvolumeclaims", "data", "shop", uid="c", spec={})
    planned = step(precondition={"uid": "other", "claim_uid": "c"})
    assert _pv_restore.check(api, [planned])[0]["state"] == "ready"
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    cluster.add("pods", "web", "shop", spec={"volumes": volumes})
    (used,) = _pv_restore.check(api, [planned])
    assert (used["state"], used["reason"]) == ("refused", "is mounted by shop/web")
    assert _pv_restore.check(client(cluster, dry_run=True), [planned])[0]["state"] == "ready"
    unclaimed = step(claim={"namespace": "", "name": "", "volume": "pv"}, precondition={"uid": "other"})
    assert _pv_restore.check(api, [unclaimed])[0]["state"] == "ready"
