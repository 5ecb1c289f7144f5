# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of what the API gives, whom is asked, and what is said of what may not be read.

The conversation itself is tried on a real API server: tests/integration/cluster/test_diagnose.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose_read
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts

OURS = "example.com/nfs"
PENDING: dict[str, Any] = {
    "metadata": {"name": "data", "namespace": "shop", "uid": "u", "managedFields": [{}]},
    "spec": {"storageClassName": "managed"},
    "status": {"phase": "Pending"},
}
CLASS: dict[str, Any] = {"metadata": {"name": "managed"}, "provisioner": OURS}
TEMPLATE: dict[str, Any] = {
    "spec": {"containers": [{"name": "p", "env": [{"name": "PROVISIONER_NAME", "value": OURS}]}]}
}
DEPLOYMENT: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "storage"},
    "spec": {"selector": {"matchLabels": {"app": "p"}}, "template": TEMPLATE},
    "status": {"readyReplicas": 1},
}
CONTAINERS = [
    {"name": "c", "image": "i", "env": [{"name": "secret"}], "volumeMounts": [{"name": "v", "mountPath": "/d"}]}
]


def pod(name: str, *states: dict[str, Any], phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    statuses = [{"name": "c", **state} for state in states]
    about = {"name": name, "namespace": "storage", "uid": name, "annotations": {"long": "text"}, **metadata}
    spec = {"containers": CONTAINERS, "volumes": [{"name": "v", "nfs": {"server": "s", "path": "/p"}}], "nodeName": "n"}
    return {"metadata": about, "spec": spec, "status": {"phase": phase, "containerStatuses": statuses}}


QUIET = pod("quiet", {"state": {"running": {}}, "restartCount": 0}, labels={"app": "p"})
FAILED = pod("failed", {"state": {"terminated": {"exitCode": 1}}}, phase="Failed")
CRASHING = pod(
    "crashing",
    {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
        "restartCount": 3,
    },
    labels={"app": "p"},
)


class Server:
    """An API that answers from dictionaries, and refuses what is listed."""

    def __init__(self, lists: Mapping[str, list[dict[str, Any]]], refused: Mapping[str, int] | None = None) -> None:
        self.lists = lists
        self.refused = refused or {}
        self.asked: list[tuple[str, str, Any]] = []
        self.allowed: Callable[[dict[str, Any]], bool] = lambda _attributes: True

    def _refuse(self, what: str) -> None:
        for name, status in self.refused.items():
            if what.endswith(name):
                raise ApiError(f"list {name.rpartition('/')[2]}: not allowed", status)

    def get(self, path: str) -> dict[str, Any]:
        self._refuse(path)
        versions = [{"version": "v1"}]
        return {"minor": "37+"} if path == "/version" else {"groups": [{"name": "apps", "versions": versions}]}

    def list_all(self, path: str, convert: Callable[[Any], Any], query: Any = None) -> Listing:
        self.asked.append(("LIST", path, query))
        self._refuse(path)
        items = (convert(json.loads(json.dumps(one))) for one in self.lists.get(path.rpartition("/")[2], []))
        return Listing([one for one in items if one is not None], "1", 1000.0)

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [function(one) for one in items]

    def ask(self, method: str, path: str, query: Any = None, body: Any = None) -> str:
        self.asked.append((method, path, query or body))
        self._refuse(path)
        if method == "GET":
            return f"{path.split('/')[6]} said this\n"
        return json.dumps({"status": {"allowed": self.allowed(body["spec"]["resourceAttributes"])}})


def read(server: Server, namespace: str = "") -> tuple[Facts, list[dict[str, str]]]:
    facts, unavailable = _diagnose_read.read(server, namespace)  # type: ignore[arg-type]  # answers like an Api
    return facts, unavailable.entries


def test_of_pods_that_run_well_little_is_kept() -> None:
    assert _diagnose_read.pod_record(QUIET) == {
        "metadata": {"name": "quiet", "namespace": "storage", "uid": "quiet", "labels": {"app": "p"}},
        "spec": {"volumes": QUIET["spec"]["volumes"], "nodeName": "n"},
        "status": {"phase": "Running"},
    }
    kept = _diagnose_read.pod_record(CRASHING)
    assert kept["spec"]["containers"] == [{key: CONTAINERS[0][key] for key in ("name", "image", "volumeMounts")}]
    assert kept["status"] == CRASHING["status"]
    assert "containers" in _diagnose_read.pod_record(pod("going", deletionTimestamp="2026-01-01T00:00:00Z"))["spec"]
    assert _diagnose_read.pod_record({"metadata": {"name": "bare"}})["status"] == {}


def test_everything_is_read_and_provisioners_are_asked_about() -> None:
    events: list[dict[str, Any]] = [{"reason": "FailedMount", "message": "m", "source": {}}, {"reason": "Scheduled"}]
    lists: dict[str, list[dict[str, Any]]] = {
        "persistentvolumeclaims": [PENDING], "storageclasses": [CLASS], "deployments": [DEPLOYMENT],
        "pods": [QUIET, FAILED, CRASHING], "events": events,
    }  # fmt: skip
    server = Server(lists)
    server.allowed = lambda one: one["verb"] != "create" and one["resource"] not in ("endpoints", "leases")
    facts, unavailable = read(server)
    assert unavailable == []
    assert (facts.now, facts.minor, facts.groups) == (1000.0, 37, {"": ["v1"], "apps": ["v1"]})
    assert facts.claims == [{**PENDING, "metadata": {"name": "data", "namespace": "shop", "uid": "u"}}]
    assert facts.events == [{"reason": "FailedMount", "message": "m"}]
    assert facts.provisioners == {OURS: "running"}
    assert facts.denied == {OURS: ["create persistentvolumes", "update endpoints"]}
    # The provisioner's pods, running or crashed, and the pod that failed.
    assert facts.logs == {
        ("storage", "quiet", "p"): "quiet said this\n",
        ("storage", "crashing", "c"): "crashing said this\n",
        ("storage", "failed", "c"): "failed said this\n",
    }
    previous = [query.get("previous") for method, path, query in server.asked if method == "GET"]
    assert previous == [None, "true", None]
    query = {"fieldSelector": "type=Warning"}
    assert ("LIST", "/api/v1/events", query) in server.asked


def test_what_nobody_waits_for_is_not_asked_about() -> None:
    bound = {**PENDING, "status": {"phase": "Bound"}}
    server = Server(
        {"persistentvolumeclaims": [bound], "storageclasses": [CLASS], "deployments": [DEPLOYMENT], "pods": [QUIET]}
    )
    facts, _unavailable = read(server)
    assert (facts.provisioners, facts.denied, facts.logs) == ({}, {}, {})
    assert all(method == "LIST" for method, _path, _query in server.asked)


def test_provisioners_of_volumes_that_are_to_go() -> None:
    notes = {"pv.kubernetes.io/provisioned-by": OURS}
    volumes: list[dict[str, Any]] = [
        {"metadata": {"name": "a", "annotations": notes}, "status": {"phase": "Released"}},
        {"metadata": {"name": "b", "deletionTimestamp": "x"}, "spec": {"csi": {"driver": "d"}}},
        {"metadata": {"name": "c"}, "status": {"phase": "Bound"}},
    ]
    assert _diagnose_read.removing_provisioners(Facts(volumes=volumes)) == {OURS, "d"}


@pytest.mark.parametrize("name", list(_diagnose_read.KINDS))
def test_a_collection_that_may_not_be_read_is_named(name: str) -> None:
    kind = _diagnose_read.KINDS[name]
    facts, unavailable = read(Server({}, {f"/{kind.resource}": 403}))
    assert getattr(facts, name) is None
    assert [(one["verb"], one["resource"]) for one in unavailable] == [("list", kind.title)]
    assert unavailable[0]["costs"]
    assert "not allowed" in unavailable[0]["reason"]


def test_what_may_not_be_read_everywhere_is_read_in_the_namespace() -> None:
    facts, unavailable = read(Server({"pods": [FAILED]}, {"v1/pods": 403, "v1/nodes": 403, "/services": 403}), "shop")
    assert facts.pods is not None
    assert [one["metadata"]["name"] for one in facts.pods] == ["failed"]
    costs = {one["resource"]: one["costs"] for one in unavailable}
    assert costs["pods"].startswith("in namespaces other than shop: ")
    assert not costs["nodes"].startswith("in namespaces")
    assert facts.services is None
    assert not costs["services"].startswith("in namespaces")


def test_locks_reviews_logs_and_versions_that_may_not_be_read() -> None:
    lists: dict[str, list[dict[str, Any]]] = {
        "persistentvolumeclaims": [PENDING],
        "storageclasses": [CLASS],
        "deployments": [DEPLOYMENT],
        "pods": [CRASHING],
    }
    refused = {"/leases": 403, "/subjectaccessreviews": 403, "/log": 500, "/apis": 403}
    facts, unavailable = read(Server(lists, refused))
    assert facts.provisioners is None
    assert facts.groups is None
    assert (facts.denied, facts.logs) == ({}, {})
    assert [(one["verb"], one["resource"]) for one in unavailable] == [
        ("get", "/apis"),
        ("list", "leases.coordination.k8s.io"),
        ("create", "subjectaccessreviews.authorization.k8s.io"),
        ("get", "pods/log"),
    ]


@pytest.mark.parametrize("name", ["v1/pods", "/leases", "/apis", "namespaces/shop/services"])
def test_other_errors_are_failures(name: str) -> None:
    lists = {"persistentvolumeclaims": [PENDING], "storageclasses": [CLASS]}
    refused = {"v1/services": 403} if "shop" in name else {}
    with pytest.raises(ApiError):
        read(Server(lists, {name: 401, **refused}), "shop")


def test_a_provisioner_whose_workload_is_unknown_has_no_rights_to_judge() -> None:
    facts, _unavailable = read(Server({"persistentvolumeclaims": [PENDING], "storageclasses": [CLASS]}))
    assert facts.denied == {}
    assert facts.provisioners == {OURS: "stopped"}
