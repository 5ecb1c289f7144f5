# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that were released are followed until a claim can have them, or has them."""

from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.tests.api_server import Cluster
from ansible_collections.clusterkit.storage.tests.reclaimed import labelled, pv, reclaim, release_controller, states


def test_the_phase_that_follows_is_waited_for(cluster: Cluster) -> None:
    cluster.controller = release_controller(cluster)
    pv(cluster, "a")
    pv(cluster, "other", claimRef=None)
    outcome = reclaim(cluster, wait=True, selection={"names": ["a"]})
    assert [(item["state"], item["phase"]) for item in outcome.items] == [("changed", "Available")]

    cluster.clear()
    cluster.controller = release_controller(cluster)
    pv(cluster, "a")
    cluster.add("persistentvolumeclaims", "data", "shop", status={"phase": "Pending"})
    outcome = reclaim(cluster, wait=True, wait_phase="Bound", release="open", policy="Retain")
    assert states(outcome) == {"a": "refused"}, "a claim of this name exists again: whose data is it?"


def test_a_reserved_volume_is_waited_for_until_its_claim_has_it(cluster: Cluster) -> None:
    cluster.controller = release_controller(cluster)
    pv(cluster, "a")

    def come_back() -> None:
        cluster.add("persistentvolumeclaims", "data", "shop", uid="c2", status={"phase": "Pending"})
        labelled(cluster)(("persistentvolumes", "", "a"))

    cluster.when_watched(come_back)
    outcome = reclaim(cluster, wait=True, wait_phase="Bound", wait_timeout=10)
    assert [(item["state"], item["phase"], item["claim"]) for item in outcome.items] == [
        ("changed", "Bound", "shop/data")
    ]


@pytest.mark.parametrize("removed", [True, False])
def test_a_watch_that_expired_is_begun_with_a_new_list(removed: bool, cluster: Cluster) -> None:
    pv(cluster, "a")

    def fate(_method: str, path: str) -> str:
        if "watch=1" in path and len(cluster.effects) == 1 and not cluster.oldest:
            if removed:
                cluster.remove("persistentvolumes", "a")
            else:
                cluster.change("persistentvolumes", "a", {"status": {"phase": "Available"}})
            cluster.expire()
        return ""

    cluster.fate = fate
    outcome = reclaim(cluster, wait=True, wait_timeout=10)
    assert states(outcome) == {"a": "gone" if removed else "changed"}
    if not removed:
        assert outcome.items[0]["phase"] == "Available"


def test_what_does_not_come_or_goes_away_meanwhile_is_said(cluster: Cluster) -> None:
    pv(cluster, "a")
    late = reclaim(cluster, wait=True, wait_timeout=1)
    assert "was released, but is Released and not Available after 1 s" in late.problem
    assert late.changed, "it was released all the same"

    cluster.clear()
    pv(cluster, "a")
    cluster.when_watched(lambda: cluster.remove("persistentvolumes", "a"))
    assert states(reclaim(cluster, wait=True, wait_timeout=10)) == {"a": "gone"}

    cluster.clear()
    cluster.controller = release_controller(cluster)
    pv(cluster, "a")
    nobody = reclaim(cluster, wait=True, wait_phase="Bound", wait_timeout=1)
    assert "is Available and not Bound after 1 s" in nobody.problem


@pytest.mark.parametrize("at_once", [True, False])
def test_a_wait_that_is_not_allowed_tells_all_that_was_done(at_once: bool, cluster: Cluster) -> None:
    pv(cluster, "a")
    pv(cluster, "b", claimRef={"namespace": "shop", "name": "data"})
    cluster.change("persistentvolumes", "b", {"status": {"phase": "Available"}})

    def fate(_method: str, path: str) -> str:
        if "watch=1" in path and not at_once:
            cluster.expire()
        return "forbidden" if cluster.effects and ("watch=1" in path) is at_once else ""

    cluster.fate = fate
    outcome = reclaim(cluster, wait=True)
    assert (states(outcome), outcome.changed) == ({"a": "failed", "b": "unchanged"}, True)
    words = f"was released, but is Released, and cannot be followed: {'watch' if at_once else 'list'} persistentvolumes"
    assert words in outcome.problem
