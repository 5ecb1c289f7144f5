# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads that are stopped for a while come back as they were, whoever was killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _workload_scale, _workloads
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api
from ansible_collections.clusterkit.storage.plugins.module_utils._workloads import STOPPED, Users
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from ansible_collections.clusterkit.storage.tests.api_server_http import serving

WEB = {"kind": "Deployment", "namespace": "shop", "name": "web"}
DATA = {"namespace": "shop", "name": "data"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as cluster:
        add(cluster, "web", 3)
        yield cluster


def add(cluster: Cluster, name: str, replicas: int, kind: str = "deployments", **spec: Any) -> None:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]
    template = {"spec": {"volumes": volumes if kind == "deployments" else []}}
    cluster.add(kind, name, "shop", spec={"replicas": replicas, "template": template, **spec})


def replicas(cluster: Cluster, name: str = "web") -> tuple[int, Any]:
    found = cluster.get("deployments", name, "shop")
    note = (found["metadata"].get("annotations") or {}).get(STOPPED)
    return found["spec"]["replicas"], json.loads(note)["replicas"] if note else None


def scale(api: Api, state: str, **more: Any) -> dict[str, Any]:
    given = {"state": state, "workloads": [WEB], "run": "one", "claims": [], "wait_timeout": 0, **more}
    return _workload_scale.carry_out(api, given)


def test_stopped_and_started_again(cluster: Cluster) -> None:
    api = client(cluster)
    checked = scale(client(cluster, dry_run=True), "stopped", claims=[DATA])
    assert checked["changed"] and replicas(cluster) == (3, None)
    first = scale(api, "stopped", claims=[DATA])
    assert first["changed"] and first["workloads"][0]["state"] == "stopped"
    assert first["claims"] == [{**DATA, "pods": []}]
    assert replicas(cluster) == (0, 3)
    again = scale(api, "stopped")
    assert not again["changed"] and again["workloads"][0]["replicas"] == 3
    assert scale(api, "started")["workloads"][0] == {**WEB, "state": "started", "replicas": 3, "reason": ""}
    assert replicas(cluster) == (3, None)
    assert not scale(api, "started")["changed"]


def test_what_a_killed_run_has_stopped_is_taken_over(cluster: Cluster) -> None:
    api = client(cluster)
    scale(api, "stopped", run="killed")
    (taken,) = scale(api, "stopped", run="next")["workloads"]
    assert (taken["taken_over"], taken["replicas"]) == (True, 3)
    # The first one, if it was alive after all, leaves it alone.
    (left,) = scale(api, "started", run="killed")["workloads"]
    assert (left["state"], left["reason"]) == ("unchanged", "another run has stopped it since")
    assert replicas(cluster) == (0, 3)
    (listed,) = scale(api, "listed")["workloads"]
    assert (listed["name"], listed["stopped"]["run"]) == ("web", "next")
    scale(api, "started", workloads=None, run=None)
    assert replicas(cluster) == (3, None)
    assert scale(api, "listed")["workloads"] == []


def test_who_was_scaled_by_somebody_else_meanwhile_keeps_that(cluster: Cluster) -> None:
    api = client(cluster)
    scale(api, "stopped")
    cluster.change("deployments", "web", {"spec": {"replicas": 5}}, "shop")
    assert scale(api, "started")["workloads"][0]["replicas"] == 5
    assert replicas(cluster) == (5, None)
    scale(api, "stopped")
    cluster.change("deployments", "web", {"spec": {"replicas": 7}}, "shop")
    scale(api, "stopped", run="next")
    assert replicas(cluster) == (0, 7)


def test_one_that_had_no_replicas_gets_none(cluster: Cluster) -> None:
    add(cluster, "idle", 0)
    idle = {**WEB, "name": "idle"}
    found = scale(client(cluster), "stopped", workloads=[idle, {**WEB, "name": "gone"}])
    assert [one["state"] for one in found["workloads"]] == ["unchanged", "gone"]
    assert replicas(cluster, "idle") == (0, None)


def test_conflicts_are_tried_again_and_refusals_told(cluster: Cluster) -> None:
    api = client(cluster)
    cluster.patches_meet("conflict", "conflict")
    assert scale(api, "stopped")["workloads"][0]["state"] == "stopped"
    assert replicas(cluster) == (0, 3)
    cluster.patches_meet("forbidden")
    with pytest.raises(_workload_scale.NotAllError, match=r"Deployment shop/web \(failed\): .*not allowed") as told:
        scale(api, "started")
    assert told.value.result["workloads"][0]["state"] == "failed"


def test_pods_that_do_not_end_are_named(cluster: Cluster) -> None:
    volumes = [
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "x", "ephemeral": {"volumeClaimTemplate": {}}},
    ]
    cluster.add("pods", "web-1", "shop", spec={"volumes": volumes})
    cluster.add("pods", "done", "shop", spec={"volumes": volumes}, status={"phase": "Succeeded"})
    cluster.add("pods", "other", "shop", spec={})
    (claim,) = scale(client(cluster), "stopped", claims=[DATA], wait_timeout=0.1)["claims"]
    assert claim["pods"] == ["shop/web-1"]
    own = _workload_scale.wait_until_unused(client(cluster), [{"namespace": "shop", "name": "web-1-x"}], 0)
    assert own[0]["pods"] == ["shop/web-1"]


def test_who_uses_a_claim_by_its_template_and_by_its_pods(cluster: Cluster) -> None:
    add(cluster, "db", 1, "statefulsets", volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    add(cluster, "cache", 1, "statefulsets")
    workloads = _workloads.read_workloads(client(cluster))
    assert [(one["kind"], one["name"]) for one in workloads] == [("Deployment", "web"), ("StatefulSet", "db")]
    pod = {"kind": "Pod", "namespace": "shop", "name": "p", "claims": ["data"], "owner": None}
    users = Users([pod], workloads)
    assert users.to_stop("shop", "data-db-0") == ([{**WEB, "kind": "StatefulSet", "name": "db"}], "")
    assert users.to_stop("shop", "data-db-x") == users.to_stop("other", "data") == ([], "")
    assert users.pods("shop", "data") == ["shop/p"]
    assert "belongs to nobody" in users.to_stop("shop", "data")[1]
    job = Users([{**pod, "owner": {"kind": "Job", "name": "j"}}], workloads)
    assert "pod shop/p mounts it and belongs to Job j, which cannot be scaled" in job.to_stop("shop", "data")[1]
    own = Users([{**pod, "owner": {"kind": "Deployment", "name": "web"}}], workloads)
    assert own.to_stop("shop", "data") == ([WEB], "")


@pytest.mark.parametrize("note", ["", "{", "[]", '{"replicas": "many"}'])
def test_notes_of_nobody_we_know(note: str) -> None:
    assert _workloads.stopped({"annotations": {STOPPED: note}}) is None
