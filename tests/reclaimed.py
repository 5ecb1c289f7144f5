# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that were released, and runs of pv_reclaim over them, for tests on an API of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _reclaim_run
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.modules import pv_reclaim
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, Key, Thing, arguments, client

CLAIM = {"namespace": "shop", "name": "data", "uid": "c1"}
ALL = {"selection": {"names": ["*"]}}


def pv(cluster: Cluster, name: str, **spec: Any) -> Thing:
    """A released volume of a driver, whose claim is gone."""
    content = {"csi": {"driver": "d"}, "persistentVolumeReclaimPolicy": "Retain", "claimRef": CLAIM, **spec}
    return cluster.add("persistentvolumes", name, spec=content, status={"phase": "Released"})


def reclaim(cluster: Cluster, *, check_mode: bool = False, **given: Any) -> Outcome:
    asked = arguments(pv_reclaim.ARGUMENTS, **{"release": "reserved", **ALL, **given})
    api = client(cluster, workers=1, dry_run=check_mode)
    return _reclaim_run.reclaim(api, asked, check_mode=check_mode, diff=True)


def states(outcome: Outcome) -> dict[str, str]:
    return {item["name"]: item["state"] for item in outcome.items}


def labelled(cluster: Cluster) -> Callable[[Key], object]:
    return lambda key: cluster.change(key[0], key[2], {"metadata": {"labels": {"by": "other"}}})


def release_controller(cluster: Cluster) -> Callable[[Key], None]:
    """What the controller manager makes of released volumes: Available, or Bound to the claim they are kept for."""

    def act(key: Key) -> None:
        if key[0] != "persistentvolumes":
            return
        volume = cluster.get("persistentvolumes", key[2])
        reference, phase = volume["spec"].get("claimRef"), volume["status"]["phase"]
        if phase in ("Released", "Failed") and not (reference or {}).get("uid"):
            cluster.change("persistentvolumes", key[2], {"status": {"phase": "Available"}})
        elif phase == "Available" and reference and not reference.get("uid"):
            claim = cluster.things.get(("persistentvolumeclaims", reference["namespace"], reference["name"]))
            if claim and claim["status"]["phase"] == "Pending":
                taken = {"spec": {"claimRef": {"uid": claim["metadata"]["uid"]}}, "status": {"phase": "Bound"}}
                cluster.change("persistentvolumes", key[2], taken)

    return act
