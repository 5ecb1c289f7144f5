# SPDX-License-Identifier: GPL-3.0-or-later
"""What an account must be allowed to do to remove volumes and to make them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .cluster import PROVISIONER, Cluster
from .disk import Disk, nfs
from .test_reclaim import RIGHTS, rules

# A file system of its own is made, and 15 accounts.
pytestmark = pytest.mark.long

NEEDED = RIGHTS["pv_cleanup"]
# What it takes to make a volume again, and only that.
FOR_PRESENT = [
    ("", "persistentvolumes", "create"),
    ("", "persistentvolumeclaims", "create"),
]


def test_the_documented_rights_are_enough_and_each_is_named_when_it_is_missing(
    empty: Cluster, noted: Disk, tmp_path: Path
) -> None:
    common = {
        "storage_servers": noted.servers,
        "cleanup_released_for": "0s",
        "cleanup_max_changes": "100%",
        "cleanup_allow_unknown_open_state": True,
        "undelete_allow_unknown_open_state": True,
    }
    empty.make_class("gold")
    for_removal = [one for one in NEEDED if one not in FOR_PRESENT]
    # The policy of one is changed before it goes, that of the other has a provisioner to be asked about.
    for number in range(len(for_removal) + 1):
        for name, more in (("static", {"policy": "Delete"}), ("dynamic", {"provisioner": PROVISIONER})):
            full = f"{name}-{number}"
            empty.make_volume(full, claim=("default", full), storage_class="gold", **nfs(f"/nfs/k8s/{full}"), **more)
            noted.fill(full)
    names = [f"{name}-{number}" for name in ("static", "dynamic") for number in range(len(for_removal) + 1)]
    empty.wait(lambda: all(empty.phase(name) in ("Released", "Failed") for name in names))

    plan = tmp_path / "cleanup.json"
    done = empty.play("clusterkit.storage.cleanup", **common, cleanup_plan_dest=str(plan))
    assert done.returncode == 0, done.stdout + done.stderr
    planned = json.loads(plan.read_text())
    assert {one["item"] for one in planned["steps"] if one["module"] == "pv_cleanup"} == set(names), planned["refusals"]

    def remove(number: int, account: Any) -> dict[str, Any]:
        only = {"plan": str(plan), "only": [f"static-{number}", f"dynamic-{number}"], "kubeconfig": account}
        objects = str(tmp_path / "objects.jsonl")
        result = empty.direct("pv_cleanup", state="intended", objects=objects, **only)
        return result if result.get("failed") else empty.direct("pv_cleanup", state="absent", **only)

    for number, left_out in enumerate([*for_removal, None]):
        account = empty.service_account(f"cleaner-{number}", rules([one for one in for_removal if one != left_out]))
        result = remove(number, account)
        if left_out is None:
            assert not result.get("failed"), result
            assert {one["object"] for one in result["volumes"]} == {"gone"}
        else:
            _group, kind, verb = left_out
            assert result.get("failed"), left_out
            assert f"needs verb {verb} on {kind}" in result["msg"], (left_out, result["msg"])

    # Both go as a whole, then they are made again.
    chosen = "static-0,dynamic-0"
    again = {"cleanup_names": chosen, "cleanup_plan_dest": str(tmp_path / "again.json"), "cleanup_confirm": True}
    done = empty.play("clusterkit.storage.cleanup", **common, **again)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = tmp_path / "undelete.json"
    undelete = {"undelete_names": chosen, "undelete_make_claim": True, "undelete_plan_dest": str(plan)}
    done = empty.play("clusterkit.storage.undelete", **common, **undelete)
    assert done.returncode == 0, done.stdout + done.stderr
    needed = [("", "persistentvolumes", "get"), ("", "namespaces", "get"), *FOR_PRESENT]
    for number, left_out in enumerate([*FOR_PRESENT, None]):
        account = empty.service_account(f"maker-{number}", rules([one for one in needed if one != left_out]))
        result = empty.direct("pv_cleanup", state="present", plan=str(plan), kubeconfig=account)
        if left_out is None:
            assert not result.get("failed"), result
            assert {one["object"] for one in result["volumes"]} == {"made"}
        else:
            assert f"needs verb create on {left_out[1]}" in result["msg"], result
