# SPDX-License-Identifier: GPL-3.0-or-later
"""The summary tells of every step and every stuck pod what came of it, and what failed fails the run."""

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.filter.recovery import FilterModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _recover
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_facts import Host
from ansible_collections.clusterkit.storage.tests.outages import OVER, cluster, host, mount, pod, uid

FILTERS = FilterModule().filters()


def planned() -> dict[str, Any]:
    found = host(mount(1, 1), mount(2, 2, major_minor="0:51"), mount(3, 3, major_minor="0:51"))
    pods = cluster(
        pod(1, deleting=OVER), pod(2, deleting=OVER), pod(3), pod(5, deleting=OVER), pod(6, deleting=OVER, node="node3")
    )
    silent = Host("node2", problem="timed out")
    return _recover.plan([found, silent], pods, {"allow_force_delete": True})


def seen(plan: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"plan": plan, "check_mode": False, "nodes": {}, "pods": {}, "forced": {}, "left": [], **more}


def told(number: int, *, removed: bool) -> dict[str, Any]:
    return {"pod": f"shop/p{number}", "uid": uid(number), "removed": removed, "seconds": 3.0 if removed else None}


def test_modules_get_what_they_take() -> None:
    plan = planned()
    steps = FILTERS["recovery_steps"](plan, "nfs_recover", "node1")
    assert [one["action"] for one in steps] == ["abort", "lazy"]
    assert set(steps[0]) == {"id", "item", "action", "path", "source", "pods", "also", "precondition"}
    assert FILTERS["recovery_steps"](plan, "nfs_recover", "node2") == []
    assert [one["action"] for one in FILTERS["recovery_steps"](plan, "pod_recover")] == ["force_delete"] * 3
    assert FILTERS["recovery_steps"]({}, "pod_recover") == []
    assert FILTERS["recovery_pods"](plan)[0] == {"namespace": "shop", "name": "p1", "uid": uid(1), "expected": True}
    assert FILTERS["recovery_left"](plan, [told(1, removed=True), told(2, removed=False), told(5, removed=False)]) == {
        "node1": [uid(2), uid(5)]
    }


def test_everything_is_told_by_node_with_what_came_of_it() -> None:
    plan = planned()
    ids = {(one["action"], one["item"].rpartition("/")[2]): one["id"] for one in plan["steps"]}
    nodes = {
        "node1": {
            "steps": [
                {"id": ids["abort", "v1"], "state": "done", "reason": ""},
                {"id": ids["lazy", "v2"], "state": "failed", "reason": "umount: broken"},
            ]
        }
    }
    pods = {"pods": [told(1, removed=True), told(2, removed=False), told(5, removed=False)], "steps": []}
    forced = {"steps": [{"id": ids["force_delete", "p5"], "pod": "shop/p5", "state": "done", "reason": ""}]}
    left = [{"uid": uid(2), "mounts": [], "processes": ["7 (dd)"]}]
    found = FILTERS["recovery"](seen(plan, nodes=nodes, pods=pods, forced=forced, left=left))
    text = "\n".join(found["lines"])
    assert found["lines"][0] == "node1:"
    assert "-> aborted, unmounted: done" in text
    assert "shop/p1: Terminating since 2026-01-01T11:59:00Z; kubelet removed it after 3.0 s" in text
    assert (
        "shop/p2: Terminating since 2026-01-01T11:59:00Z; kubelet has not removed it; processes are left: 7 (dd)"
        in text
    )
    assert "remains: node1:/var/lib/kubelet/pods/" in text
    assert "shop/p5: Terminating since 2026-01-01T11:59:00Z; deleted by force" in text
    assert "nothing to do: node1:" in text
    assert "node2:\n  remains: node2: does not answer (timed out)" in text
    assert "elsewhere:\n  remains: node3: does not answer" in text
    assert found["wrong"] == [f"node1:{plan['steps'][1]['path']}: failed: umount: broken"]
    by_item = {(one["item"], one.get("action")): one["state"] for one in found["results"]}
    assert by_item["shop/p1", "force_delete"] == "not needed"
    assert by_item["shop/p5", "force_delete"] == "done"
    assert by_item["shop/p5", None] == "removed"


def test_a_host_that_fell_silent_in_between_is_wrong_and_a_pod_that_stays_is_said() -> None:
    plan = planned()
    left = [{"uid": uid(1), "mounts": [], "processes": []}]
    found = FILTERS["recovery"](seen(plan, pods={"pods": [told(1, removed=False)]}, left=left))
    assert len(found["wrong"]) == 2
    assert all("the host or the API gave no result" in line for line in found["wrong"])
    text = "\n".join(found["lines"])
    assert "kubelet has not removed it; neither processes nor mounts are left, so kubelet is late" in text
    assert "not done: its node did not confirm" in text
    assert "shop/p2: Terminating since 2026-01-01T11:59:00Z; nobody looked whether it is gone" in text


def test_mounts_of_the_inventory_are_told_by_their_path() -> None:
    wanted = [{"path": "/srv/a"}, {"path": "/srv/b"}]
    plan = _recover.plan([host(wanted=wanted)], cluster(), {})
    paths = [one["path"] for one in FILTERS["recovery_steps"](plan, "nfs_mounts", "node1")]
    assert paths == ["/srv/a", "/srv/b"]
    mounts = [{"path": "/srv/a", "failed": False, "msg": ""}, {"path": "/srv/b", "failed": True, "msg": "refused"}]
    found = FILTERS["recovery"](seen(plan, nodes={"node1": {"steps": [], "mounts": mounts}}))
    assert found["wrong"] == ["node1:/srv/b: failed: refused"]
    assert "  node1:/srv/a: not mounted; nfs_client_mounts of the inventory says so -> mounted: done" in found["lines"]


def test_check_mode_says_what_would_be_waited_for() -> None:
    plan = planned()
    steps = [
        {"id": one["id"], "state": "planned", "reason": ""} for one in plan["steps"] if one["module"] == "nfs_recover"
    ]
    found = FILTERS["recovery"](seen(plan, check_mode=True, nodes={"node1": {"steps": steps}}))
    assert found["wrong"] == []
    assert "kubelet would be waited for" in "\n".join(found["lines"])


def test_a_node_without_anything_stuck_is_named_too() -> None:
    plan = _recover.plan([host()], cluster(), {})
    assert FILTERS["recovery"](seen(plan))["lines"] == ["node1:", "  nothing was stuck"]
