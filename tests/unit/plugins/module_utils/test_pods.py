# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a pod: who makes it again, which of its volumes lie on NFS, and whether its time is over."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _pods


def record(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    item = {"metadata": {"namespace": "shop", "name": "web-0", "uid": "u", "resourceVersion": "7", **metadata}}
    return _pods.pod_record(
        {**item, "spec": {"nodeName": "node1", **(spec or {})}}, {("shop", "data"): "nfs1:/srv/data"}
    )


@pytest.mark.parametrize(
    ("reference", "labels", "owner"),
    [
        (None, {}, None),
        ({"kind": "StatefulSet", "name": "web", "controller": True}, {}, "StatefulSet web"),
        (
            {"kind": "ReplicaSet", "name": "web-7d9f", "controller": True},
            {"pod-template-hash": "7d9f"},
            "Deployment web",
        ),
        ({"kind": "ReplicaSet", "name": "web", "controller": True}, {}, "ReplicaSet web"),
        ({"kind": "Node", "name": "node1", "controller": True}, {}, None),
        ({"kind": "ConfigMap", "name": "x"}, {}, None),
    ],
)
def test_the_owner_is_who_makes_it_again(reference: Any, labels: dict[str, str], owner: str | None) -> None:
    assert record(ownerReferences=[reference] if reference else None, labels=labels)["owner"] == owner


def test_volumes_on_nfs_are_found_through_claims() -> None:
    made = record(
        {
            "volumes": [
                {"name": "a", "nfs": {"server": "nfs1", "path": "/srv"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "on-a-disk"}},
                {"name": "d", "hostPath": {"path": "/data"}},
                {"name": "e", "emptyDir": {}},
                {"name": "f", "ephemeral": {"volumeClaimTemplate": {}}},
            ]
        }
    )
    assert made["volumes"] == [
        {"name": "a", "kind": "nfs", "source": "nfs1:/srv"},
        {"name": "b", "kind": "nfs", "source": "nfs1:/srv/data"},
        {"name": "d", "kind": "hostPath", "source": "/data"},
    ]
    assert _pods.uses_nfs(made)
    assert not _pods.uses_nfs(record({"volumes": [{"name": "d", "hostPath": {"path": "/data"}}]}))


@pytest.mark.parametrize(
    ("deleting", "over"), [(None, False), ("2026-01-01T00:00:10Z", True), ("2026-01-01T00:00:11Z", False)]
)
def test_a_pod_is_ending_once_its_grace_period_is_over(deleting: str | None, over: bool) -> None:
    assert _pods.is_ending(record(deletionTimestamp=deleting), 1767225610.0) is over


def test_a_node_is_told_with_its_addresses_and_since_when_it_is_not_ready() -> None:
    condition = {"type": "Ready", "status": "Unknown", "lastTransitionTime": "t"}
    item = {"metadata": {"name": "n"}, "status": {"conditions": [condition], "addresses": [{"address": "10.0.0.1"}]}}
    assert _pods.node_record(item) == {
        "schema": 1, "kind": "Node", "name": "n", "ready": False, "since": "t", "addresses": ["10.0.0.1"],
    }  # fmt: skip
    assert _pods.node_record({"metadata": {"name": "n"}})["addresses"] == []


def test_a_mirror_is_known_by_both_uids() -> None:
    assert record(annotations={"kubernetes.io/config.hash": "f" * 32})["static_uid"] == "f" * 32
