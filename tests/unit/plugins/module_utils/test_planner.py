# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan is made of the right listing only, and never of more than was allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _plan, _planner
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume


def volume(number: int) -> Volume:
    return Volume.of(
        {
            "metadata": {"name": f"pv-{number}", "uid": f"u{number}", "resourceVersion": "7"},
            "spec": {
                "nfs": {"server": "s", "path": f"/nfs/{number}"},
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "shop", "name": f"c{number}", "uid": f"cu{number}"},
            },
            "status": {"phase": "Bound"},
        }
    )


def listed(folder: Path, *, complete: bool = False, facts: bool = True, count: int = 3) -> str:
    listing = _listing.Listing(
        [volume(number) for number in range(count)],
        "cluster",
        complete,
        "2026-01-01T00:00:00Z",
        count,
        Facts() if facts else None,
        [
            _listing.claim_record(
                {
                    "metadata": {"namespace": "shop", "name": f"c{n}", "uid": f"cu{n}", "resourceVersion": "3"},
                    "spec": {"volumeName": f"pv-{n}", "resources": {"requests": {"storage": "1Gi"}}},
                    "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
                }
            )
            for n in range(count)
        ],
    )
    file = folder / "listing.jsonl"
    file.write_text("".join(f"{line}\n" for line in _listing.lines(listing)))
    return str(file)


def plan(action: str, listing: str | None, request: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    given = {
        "action": action,
        "plan": None,
        "listing": listing,
        "host": "localhost",
        "max_changes": None,
        action: request,
    }
    return _planner.plan({**given, **more})


def test_a_plan_holds_what_is_listed(tmp_path: Path) -> None:
    made = plan("reclaim", listed(tmp_path), {"policy": "Retain"})
    assert [step["item"] for step in made["steps"]] == ["pv-0", "pv-1", "pv-2"]
    grown = plan("expand", listed(tmp_path, complete=True), {"selection": {"names": ["*"]}, "size": "2Gi"})
    assert len(grown["steps"]) + len(grown["refusals"]) == 3
    file = tmp_path / "plan.json"
    file.write_text(_plan.write(made))
    assert plan("reclaim", None, None, plan=str(file)) == made


def test_a_listing_that_is_not_for_this_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make it with plan_for: reclaim"):
        plan("reclaim", listed(tmp_path, facts=False), {"policy": "Retain"})
    with pytest.raises(ValueError, match="no selection never means all"):
        plan("reclaim", listed(tmp_path, complete=True), {"policy": "Retain"})
    with pytest.raises(ValueError, match="make it without a selection, and with plan_for: expand"):
        plan("expand", listed(tmp_path), {"selection": {"names": ["*"]}, "size": "2Gi"})


def test_more_than_is_allowed_makes_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 volumes would be changed, but max_changes is 34%, which is 2 of 3 volumes"):
        plan("reclaim", listed(tmp_path), {"policy": "Retain"}, max_changes="34%")
    assert plan("reclaim", listed(tmp_path), {"policy": "Retain"}, max_changes="100%")["steps"]
    file = tmp_path / "plan.json"
    file.write_text(_plan.write(plan("reclaim", listed(tmp_path), {"policy": "Retain"})))
    with pytest.raises(ValueError, match="percent need the listing"):
        plan("reclaim", None, None, plan=str(file), max_changes="50%")
    with pytest.raises(ValueError, match="3 volumes would be changed, but max_changes is 2 so nothing was done"):
        plan("reclaim", None, None, plan=str(file), max_changes="2")


def test_a_claim_that_was_just_made_can_be_listed() -> None:
    made = _listing.claim_record(
        {"metadata": {"namespace": "a", "name": "b", "uid": "c", "resourceVersion": "1"}, "spec": {}}
    )
    assert (made["phase"], made["request"], made["capacity"], made["volume"]) == ("Pending", "0", "0", "")
