# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims grow with their volumes, in front of a real API server and its rules."""

from __future__ import annotations

import threading
from typing import Any

from .cluster import PROVISIONER, Cluster
from .proxy import proxied
from .test_reclaim import RIGHTS, rules

CSI = {"csi": {"driver": "csi.example.com", "volumeHandle": "one"}}


def sizes(cluster: Cluster, name: str) -> tuple[str, str, str]:
    """Of the volume, what the claim has, what it asks for."""
    one = cluster.claim(name)
    volume = cluster.volume(name)["spec"]["capacity"]["storage"]
    return volume, one["status"]["capacity"]["storage"], one["spec"]["resources"]["requests"]["storage"]


def of(*names: str) -> list[dict[str, str]]:
    return [{"namespace": "default", "name": name} for name in names]


def test_static_and_dynamic_volumes_grow_in_every_spelling(empty: Cluster) -> None:
    empty.make_class("grows")
    empty.make_class("fixed", expands=False)
    empty.make_bound("static", storage_class="none")
    empty.make_bound("dynamic", storage_class="grows", provisioner=PROVISIONER)
    empty.make_bound("fixed", storage_class="fixed", provisioner=PROVISIONER)
    for size, stored in (
        ("1.3Gi", "1395864371200m"),
        ("1536Mi", "1536Mi"),
        ("1700M", "1700M"),
        ("2e9", "2e9"),
        ("+20%", "2289Mi"),
        ("3Gi", "3Gi"),
        ("+1Gi", "4Gi"),
    ):
        result = empty.direct("pvc_expand", claims=of("static", "dynamic", "fixed"), size=size)
        assert not result.get("failed"), result
        assert result["summary"] == {"changed": 3}
        assert sizes(empty, "dynamic") == (stored, stored, stored)
        for name in ("static", "fixed"):
            assert sizes(empty, name) == (stored, stored, "1Gi"), "its request cannot grow"
    notes = {one["claim"]: one.get("note", "") for one in result["claims"]}
    assert "request of the claim stays 1Gi" in notes["default/static"]
    assert [one["limit"] for one in result["quotas"]] == [4 * 2**30] * 3
    assert [(one["promised_before"], one["promised"]) for one in result["shares"]] == [(9 * 2**30, 12 * 2**30)]
    again = empty.direct("pvc_expand", claims=of("static", "dynamic", "fixed"), size="4Gi")
    assert (again["changed"], again["summary"]) == (False, {"unchanged": 3})


def test_what_must_not_grow_is_refused_and_stays(empty: Cluster) -> None:
    empty.make_class("grows")
    empty.make_bound("large", storage_class="grows", size="10Gi")
    empty.make_bound("doomed", storage_class="grows", policy="Delete", provisioner=PROVISIONER)
    empty.make_claim("pending", storage_class="grows", size="1Gi")
    before = empty.volumes()
    result = empty.direct("pvc_expand", claims=of("large", "doomed", "pending", "gone"), size="5Gi")
    assert result["failed"]
    reasons = {one["claim"].split("/")[1]: one["reason"] for one in result["claims"]}
    assert "would shrink: its capacity is 10Gi, more than 5Gi" in reasons["large"]
    assert "has policy Delete: set Retain first" in reasons["doomed"]
    assert "is Pending: only a bound claim can grow" in reasons["pending"]
    assert "does not exist" in reasons["gone"]
    assert empty.volumes() == before
    empty.direct("pvc_expand", claims=of("doomed"), size="5Gi", allow_delete_policy=True)
    assert sizes(empty, "doomed") == ("5Gi", "5Gi", "5Gi")
    assert empty.volume("doomed")["spec"]["persistentVolumeReclaimPolicy"] == "Delete", "the policy stays"


def test_a_csi_claim_asks_and_waits_for_its_resizer(empty: Cluster) -> None:
    empty.make_class("grows")
    empty.make_bound("csi", storage_class="grows", source=CSI)
    late = empty.direct("pvc_expand", claims=of("csi"), size="2Gi", wait_timeout=1)
    assert "has not enlarged it after 1 s; does it run?" in late["claims"][0]["reason"]
    assert sizes(empty, "csi") == ("1Gi", "1Gi", "2Gi")
    assert empty.direct("pvc_expand", claims=of("csi"), size="2Gi", wait=False)["summary"] == {"pending": 1}

    def resizer() -> None:
        """What external-resizer does at last, in place of a driver."""
        empty.patch("/api/v1/persistentvolumes/csi", {"spec": {"capacity": {"storage": "3Gi"}}})
        path = "/api/v1/namespaces/default/persistentvolumeclaims/csi/status"
        empty.patch(path, {"status": {"capacity": {"storage": "3Gi"}}})

    timer = threading.Timer(3, resizer)
    timer.start()
    done = empty.direct("pvc_expand", claims=of("csi"), size="3Gi", wait_timeout=30)
    timer.join()
    assert done["claims"][0]["state"] == "changed", done
    assert sizes(empty, "csi") == ("3Gi", "3Gi", "3Gi")


def test_stopped_at_any_point_it_is_finished_by_the_next_run(empty: Cluster) -> None:
    """Each object of a claim fails in turn; what was done before stays, and nothing contradicts."""
    empty.make_class("grows")
    names = [f"c-{number}" for number in range(30)]
    empty.many(lambda name: empty.make_bound(name, storage_class="grows"), names)
    account = empty.service_account("grower", rules(RIGHTS["pvc_expand"]))
    seen = set()
    with proxied(empty, 0.5, faults=("unavailable", "error after", "lost"), methods=("PATCH",)) as proxy:
        config = empty.kubeconfig_with(account["users"][0]["user"], proxy.port)
        request: dict[str, Any] = {"selection": {"names": ["c-*"]}, "size": "2Gi"}
        empty.direct("pvc_expand", kubeconfig=config, retry_timeout=0, **request)
    for name in names:
        volume, has, asks = sizes(empty, name)
        assert (volume, has, asks) in {
            ("1Gi", "1Gi", "1Gi"),
            ("2Gi", "1Gi", "1Gi"),
            ("2Gi", "2Gi", "1Gi"),
            ("2Gi", "2Gi", "2Gi"),
        }
        seen.add((volume, has, asks))
    assert len(seen) >= 3, "the faults came too early or too late"
    result = empty.direct("pvc_expand", **request)
    assert not result.get("failed"), result["msg"]
    assert {sizes(empty, name) for name in names} == {("2Gi", "2Gi", "2Gi")}


def test_check_mode_asks_the_server_and_changes_nothing(empty: Cluster) -> None:
    empty.make_class("grows")
    empty.make_bound("one", storage_class="grows")
    before = (empty.volume("one"), empty.claim("one"))
    result = empty.direct("pvc_expand", claims=of("one"), size="2Gi", check=True, diff=True)
    assert result["claims"][0]["done"] == ["volume", "status", "request"]
    assert "capacity: 2Gi" in result["diff"][0]["after"]
    assert (empty.volume("one"), empty.claim("one")) == before
