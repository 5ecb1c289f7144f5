# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of volumes and of all that their fate hangs on, from an API with those objects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PROVISIONED_BY
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, Thing, client

NAME = "example.com/nfs"


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - seconds))


FRESH, STALE = 30, 90  # seconds; a lock counts as held for 60

Add = Callable[[Cluster], object]


def lease(age: float, holder: str = "pod", name: str = "example.com-nfs") -> Add:
    spec = {"holderIdentity": holder}
    return lambda cluster: cluster.add("leases", name, "kube-system", spec={**spec, "renewTime": ago(age)})


def endpoints(age: float, holder: str = "pod") -> Add:
    def add(cluster: Cluster) -> None:
        leader = json.dumps({"holderIdentity": holder, "renewTime": ago(age)}, separators=(",", ":"))
        metadata = {"annotations": {"control-plane.alpha.kubernetes.io/leader": leader}}
        cluster.add("endpoints", "example.com-nfs", "storage", metadata=metadata)

    return add


def controller(ready: int, leader: str = "true", name: str = NAME, kind: str = "deployments", **more: Any) -> Add:
    env = [{"name": "PROVISIONER_NAME", "value": name}, {"name": "ENABLE_LEADER_ELECTION", "value": leader}]
    container = more or {"env": env}
    template = {"spec": {"containers": [container]}}
    return lambda cluster: cluster.add(
        kind, f"p-{ready}", "storage", spec={"template": template}, status={"readyReplicas": ready}
    )


@pytest.mark.parametrize(
    ("objects", "state"),
    [
        ([], "stopped"),
        ([lease(FRESH)], "running"),
        ([lease(STALE)], "stopped"),
        ([lease(FRESH, holder="")], "stopped"),
        ([lease(FRESH, name="another")], "stopped"),
        ([lease(FRESH, name="example-com-nfs")], "running"),
        ([endpoints(FRESH)], "running"),
        ([endpoints(STALE)], "stopped"),
        ([endpoints(FRESH, holder="")], "stopped"),
        ([lease(STALE), controller(1)], "stopped"),
        ([lease(STALE), controller(1, "false")], "running"),
        ([controller(1)], "running"),
        ([controller(0)], "stopped"),
        ([controller(1, name="other")], "stopped"),
        ([controller(0), controller(1, kind="statefulsets")], "running"),
        ([controller(1, kind="daemonsets")], "stopped"),
        ([controller(1, args=["--v=2", f"--drivername={NAME}"])], "running"),
        ([controller(1, command=["--drivername=other"])], "stopped"),
    ],
)
def test_a_provisioner_runs_if_its_lock_is_fresh_or_a_pod_is_ready(
    objects: list[Add], state: str, cluster: Cluster
) -> None:
    for add in objects:
        add(cluster)
    assert _volume_set.provisioner_states(client(cluster), [NAME]) == {NAME: state}


def test_provisioners_are_told_apart(cluster: Cluster) -> None:
    lease(FRESH)(cluster)
    controller(1, name="ready")(cluster)
    names = [NAME, "ready", "stopped"]
    assert _volume_set.provisioner_states(client(cluster), names) == {
        NAME: "running",
        "ready": "running",
        "stopped": "stopped",
    }
    cluster.asked.clear()
    assert _volume_set.provisioner_states(client(cluster), []) == {}
    assert cluster.asked == [], "nothing is asked for nothing"


def pv(cluster: Cluster, name: str, provisioner: str = "", **labels: str) -> Thing:
    annotations = {PROVISIONED_BY: provisioner} if provisioner else {}
    spec = {"nfs": {"server": "192.0.2.10", "path": f"/nfs/{name}"}}
    return cluster.add(
        "persistentvolumes", name, metadata={"annotations": annotations, "labels": labels}, spec=spec, status={}
    )


def test_volumes_are_selected_by_the_api_and_by_us(cluster: Cluster) -> None:
    pv(cluster, "b", NAME, app="web")
    pv(cluster, "a", "gone", app="web")
    pv(cluster, "c", app="db")
    lease(FRESH)(cluster)
    servers = [
        {"name": "nfs1", "addresses": ["192.0.2.10"], "shares": [{"server_path": "/srv", "client_path": "/nfs"}]}
    ]
    api = client(cluster)

    def names(**criteria: Any) -> list[str]:
        return [one.name for one in _volume_set.read_selected(api, Selection(criteria)).volumes]

    assert names(label_selectors=["app=web"]) == ["a", "b"]
    assert names(abandoned=True) == ["a"]
    assert names(abandoned=False, names=["*"]) == ["b", "c"]
    everything = _volume_set.read_selected(api, Selection({}), servers=servers, provisioner_state=True)
    assert (everything.complete, everything.resource_version) == (True, str(cluster.version))
    assert abs(everything.now - time.time()) < 60
    assert [(one.server_dir, one.provisioner_state) for one in everything.volumes] == [
        ("/srv/a", "stopped"),
        ("/srv/b", "running"),
        ("/srv/c", "unknown"),
    ]
    assert not _volume_set.read_selected(api, Selection({"names": ["*"]})).complete, "chosen, so perhaps not all"


@pytest.mark.parametrize("few", [1, 100])
def test_named_volumes_come_in_their_order_one_by_one_or_by_a_list(
    few: int, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_volume_set, "FEW", few)
    for name in ("a", "b", "c"):
        pv(cluster, name)
    found = _volume_set.read_named(client(cluster), ["c", "none", "a", "c"])
    assert ([one.name for one in found.volumes], found.missing, found.complete) == (["c", "a"], ["none"], False)
    assert found.resource_version == str(cluster.version)
    assert any("persistentvolumes/c" in one for one in cluster.asked) is (few == 100)


@pytest.mark.parametrize("few", [0, 100])
def test_claims_that_live_are_known_by_their_uid(few: int, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_volume_set, "FEW", few)
    for namespace, uid in (("shop", "c1"), ("bank", "c2")):
        cluster.add("persistentvolumeclaims", "data", namespace, uid=uid)
    wanted = [("shop", "data"), ("shop", "other"), ("shop", "data")]
    assert _volume_set.live_claims(client(cluster), wanted) == {("shop", "data"): "c1"}


def test_what_may_not_be_read_is_not_taken_for_absent(cluster: Cluster) -> None:
    cluster.fate = lambda _method, _path: "forbidden"
    api = client(cluster)
    with pytest.raises(ApiError, match="not allowed"):
        _volume_set.live_claims(api, [("shop", "data")])
    with pytest.raises(ApiError, match="not allowed"):
        _volume_set.read_volume(api, "a")


def test_recyclers_are_known_by_name_and_by_place(cluster: Cluster) -> None:
    mounts = [{"nfs": {"server": "s", "path": "/nfs/a"}}, {"emptyDir": {}}]
    cluster.add("pods", "recycler-for-a", "default", spec={"volumes": mounts})
    cluster.add("pods", "recycler-for-b", "default", spec={}, status={"phase": "Failed"})
    cluster.add("pods", "web", "default", spec={"volumes": mounts}, status={"phase": "Running"})
    cluster.add("pods", "recycler-for-c", "other", spec={}, status={"phase": "Running"})
    assert _volume_set.recycled_now(client(cluster)) == {"a", "s:/nfs/a"}


def test_protected_are_the_labelled_and_the_listed(cluster: Cluster) -> None:
    cluster.add("namespaces", "vault", metadata={"labels": {_volume_set.PROTECTED: "true"}})
    cluster.add("namespaces", "open", metadata={"labels": {_volume_set.PROTECTED: "false"}})
    assert _volume_set.protected_namespaces(client(cluster), ["shop"]) == {"vault", "shop"}
