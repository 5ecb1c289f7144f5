# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a cluster before its inputs are judged."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _cluster_read
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PREVIOUS_POLICY, PROVISIONED_BY
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client

NAME = "example.com/nfs"


def deployment(**container: Any) -> dict[str, Any]:
    return {"selector": {"matchLabels": {"app": "p"}}, "template": {"spec": {"containers": [container]}}}


def test_everything_that_is_compared_is_read(cluster: Cluster) -> None:
    cluster.add("storageclasses", "c", metadata={"managedFields": [1]}, provisioner=NAME)
    annotations = {PROVISIONED_BY: NAME, PREVIOUS_POLICY: "Delete", "other": "x"}
    spec = {"persistentVolumeReclaimPolicy": "Delete", "nfs": {"server": "s", "path": "/p"}, "mountOptions": ["hard"]}
    cluster.add(
        "persistentvolumes", "v", metadata={"annotations": annotations}, spec=spec, status={"phase": "Released"}
    )
    cluster.add("persistentvolumes", "w", spec={"persistentVolumeReclaimPolicy": "Delete"}, status={"phase": "Bound"})
    cluster.add("persistentvolumeclaims", "data", "shop", spec={"volumeName": "v"})
    env = [{"name": "PROVISIONER_NAME", "value": NAME}, {"name": "NFS_SERVER", "value": "s"}]
    metadata = {"labels": {"chart": "subdir-4.0.18"}, "annotations": {"meta.helm.sh/release-name": "r"}}
    cluster.add("deployments", "p", "storage", metadata=metadata, spec=deployment(image="i:v1", env=env))
    cluster.add("statefulsets", "csi", "storage", spec=deployment(args=["--v=5 --drivername=nfs.csi.k8s.io"]))
    cluster.add("deployments", "web", "shop", spec=deployment(image="web"))
    wanted = [{"name": "data", "namespace": "shop"}, {"name": "missing"}, {"name": 1}, "nonsense", {"name": "data"}]
    found = _cluster_read.read(client(cluster), wanted)
    assert found["version"] == "v1.37.2"
    assert found["namespaces"] == ["kube-system"]
    assert "managedFields" not in found["storage_classes"][0]["metadata"]
    released = next(one for one in found["volumes"] if one["metadata"]["name"] == "v")
    assert released["metadata"]["annotations"] == {PROVISIONED_BY: NAME, PREVIOUS_POLICY: "Delete"}
    assert set(released["spec"]) == {"persistentVolumeReclaimPolicy", "nfs"}
    assert [one["metadata"]["name"] for one in found["claims"]] == ["data"]
    assert found["controllers"] == [
        {
            "kind": "Deployment",
            "namespace": "storage",
            "name": "p",
            "provisioner": NAME,
            "image": "i:v1",
            "server": "s",
            "path": "",
            "selector": {"app": "p"},
            "release": "r",
            "chart": "subdir-4.0.18",
        },
        {
            "kind": "StatefulSet",
            "namespace": "storage",
            "name": "csi",
            "provisioner": "nfs.csi.k8s.io",
            "image": "",
            "server": "",
            "path": "",
            "selector": {"app": "p"},
            "release": "",
            "chart": "",
        },
    ]
    assert found["provisioner_states"] == {NAME: "stopped"}


def test_a_list_of_claims_that_is_none_asks_for_nothing(cluster: Cluster) -> None:
    assert _cluster_read.read(client(cluster), {"name": "x"})["claims"] == []


def test_an_api_that_refuses_to_show_a_claim_is_an_error(cluster: Cluster) -> None:
    cluster.fate = lambda _method, path: "forbidden" if "persistentvolumeclaims" in path else ""
    with pytest.raises(ApiError, match="persistentvolumeclaims"):
        _cluster_read.read(client(cluster), [{"name": "x"}])
