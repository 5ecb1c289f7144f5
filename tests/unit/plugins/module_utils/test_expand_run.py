# SPDX-License-Identifier: GPL-3.0-or-later
"""How each claim ends when others are faster, answers get lost, or the API says no; and what a resizer makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _expand_run, _listing, _plan, _planner
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.modules import pvc_expand
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, Thing, arguments, client

ALL = {"selection": {"names": ["*"]}, "size": "2Gi"}
NFS = {"nfs": {"server": "s", "path": "/nfs/a"}}
LABELLED = {"metadata": {"labels": {"by": "other"}}}
CSI = {"csi": {"driver": "d", "volumeHandle": "h"}}


def bound(
    cluster: Cluster,
    name: str,
    *,
    size: str = "1Gi",
    source: Thing | None = None,
    storage_class: str = "gold",
    **spec: Any,
) -> None:
    """A claim and its volume, both of this name; the class of the claim allows expansion."""
    if ("storageclasses", "", "gold") not in cluster.things:
        cluster.add("storageclasses", "gold", provisioner="p", allowVolumeExpansion=True)
    requests = {"requests": {"storage": size}}
    uid = f"claim-{name}"
    cluster.add(
        "persistentvolumeclaims", name, "shop", uid=uid,
        spec={"storageClassName": storage_class, "volumeName": name, "resources": requests},
        status={"phase": "Bound", "capacity": {"storage": size}},
    )  # fmt: skip
    content = {"capacity": {"storage": size}, "persistentVolumeReclaimPolicy": "Retain", **(source or NFS), **spec}
    content["claimRef"] = {"namespace": "shop", "name": name, "uid": uid}
    cluster.add("persistentvolumes", name, spec=content, status={"phase": "Bound"})


def sizes(cluster: Cluster, name: str) -> tuple[str, str, str]:
    """Of the volume, what the claim has, what it asks for."""
    claim = cluster.get("persistentvolumeclaims", name, "shop")
    volume = cluster.get("persistentvolumes", name)["spec"]["capacity"]["storage"]
    return volume, claim["status"]["capacity"]["storage"], claim["spec"]["resources"]["requests"]["storage"]


def expand(cluster: Cluster, *, check_mode: bool = False, **given: Any) -> Outcome:
    api = client(cluster, workers=1, dry_run=check_mode)
    return _expand_run.expand(
        api, arguments(pvc_expand.ARGUMENTS, **{**ALL, **given}), check_mode=check_mode, diff=True
    )


def of(*names: str) -> dict[str, Any]:
    return {"selection": None, "claims": [{"namespace": "shop", "name": name} for name in names]}


def states(outcome: Outcome) -> dict[str, str]:
    return {item["claim"].removeprefix("shop/"): item["state"] for item in outcome.items}


def kinds(cluster: Cluster) -> list[tuple[str, str]]:
    return [(one.key[0], one.key[2]) for one in cluster.effects]


def at(number: int, act: Callable[[], object]) -> Callable[[int], object]:
    """Others act right before this patch is judged."""
    return lambda patch: act() if patch == number else None


def test_volume_then_claim_grow_and_the_second_run_has_nothing_to_do(cluster: Cluster) -> None:
    bound(cluster, "a")
    bound(cluster, "fixed", storage_class="")
    outcome = expand(cluster)
    assert (states(outcome), outcome.problem) == ({"a": "changed", "fixed": "changed"}, "")
    assert [item["done"] for item in outcome.items] == [["volume", "status", "request"], ["volume", "status"]]
    assert (sizes(cluster, "a"), sizes(cluster, "fixed")) == (("2Gi",) * 3, ("2Gi", "2Gi", "1Gi"))
    assert "request of the claim stays 1Gi" in outcome.items[1]["note"]
    assert outcome.diffs[0]["before"] == "request: 1Gi\ncapacity: 1Gi\nvolume: 1073741824 bytes\n"
    assert outcome.diffs[0]["after"] == "request: 2Gi\ncapacity: 2Gi\nvolume: 2147483648 bytes\n"
    assert {one["limit"] for one in outcome.more["quotas"]} == {2 * 2**30}
    again = expand(cluster)
    assert (states(again), again.changed) == ({"a": "unchanged", "fixed": "unchanged"}, False)
    assert len(cluster.effects) == 5


def test_check_mode_asks_for_every_patch_and_keeps_none(cluster: Cluster) -> None:
    bound(cluster, "a")
    before = dict(cluster.things)
    outcome = expand(cluster, check_mode=True)
    assert outcome.items[0]["done"] == ["volume", "status", "request"]
    assert outcome.diffs[0]["after"].startswith("request: 2Gi\ncapacity: 2Gi\n")
    assert cluster.things == before
    assert sum(one.startswith("PATCH") for one in cluster.asked) == 3


@pytest.mark.parametrize(
    ("patch", "resource", "namespace"),
    [
        (0, "persistentvolumes", ""),
        (1, "persistentvolumeclaims", "shop"),
        (2, "persistentvolumeclaims", "shop"),
    ],
)
def test_another_ones_change_is_read_and_kept(patch: int, resource: str, namespace: str, cluster: Cluster) -> None:
    bound(cluster, "a")
    cluster.disturb([], at(patch, lambda: cluster.change(resource, "a", LABELLED, namespace)))
    assert states(expand(cluster)) == {"a": "changed"}
    assert sizes(cluster, "a") == ("2Gi",) * 3
    assert cluster.get(resource, "a", namespace)["metadata"]["labels"] == {"by": "other"}


def test_a_claim_that_somebody_else_made_larger_is_not_made_smaller(cluster: Cluster) -> None:
    bound(cluster, "a")
    grown = {"spec": {"capacity": {"storage": "5Gi"}}}
    cluster.disturb([], at(0, lambda: cluster.change("persistentvolumes", "a", grown)))
    outcome = expand(cluster)
    assert states(outcome) == {"a": "refused"}
    assert "would shrink" in outcome.items[0]["reason"]
    assert cluster.effects == []


def test_what_becomes_impossible_on_the_way_has_failed(cluster: Cluster) -> None:
    bound(cluster, "a")
    doomed = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}

    def act() -> None:
        cluster.change("persistentvolumes", "a", doomed)
        cluster.change("persistentvolumeclaims", "a", LABELLED, "shop")

    cluster.disturb([], at(1, act))
    outcome = expand(cluster)
    assert states(outcome) == {"a": "failed"}
    assert (outcome.items[0]["done"], outcome.changed) == (["volume"], True)
    assert "has policy Delete" in outcome.problem


def test_who_always_undoes_what_is_done_is_not_fought_for_ever(cluster: Cluster) -> None:
    bound(cluster, "a")
    back = {"spec": {"capacity": {"storage": "1Gi"}}}

    def undo(patch: int) -> None:
        if patch % 2:
            cluster.change("persistentvolumes", "a", back)
            cluster.change("persistentvolumeclaims", "a", {"metadata": {"labels": {"n": str(patch)}}}, "shop")

    cluster.disturb([], undo)
    outcome = expand(cluster)
    assert states(outcome) == {"a": "failed"}
    assert "others undo what is done for it" in outcome.problem
    assert len(outcome.items[0]["done"]) == 10


def test_a_claim_that_others_change_for_ever_is_given_up(cluster: Cluster) -> None:
    bound(cluster, "a")
    cluster.before_patch = lambda key: cluster.change(
        key[0], key[2], {"metadata": {"labels": {"n": str(cluster.version)}}}
    )
    outcome = expand(cluster, retry_timeout=0)
    assert "others changed it all the time for 0 s" in outcome.problem
    assert cluster.effects == []


@pytest.mark.parametrize("again", [False, True])
def test_what_is_gone_or_another_one_by_now_is_not_touched(again: bool, cluster: Cluster) -> None:
    for number in (0, 1):
        cluster.clear()
        bound(cluster, "a")

        def act() -> None:
            cluster.remove("persistentvolumes", "a")
            cluster.remove("persistentvolumeclaims", "a", "shop")
            if again:
                bound(cluster, "a")
                for key in list(cluster.things):
                    if key[2] == "a":
                        cluster.things[key]["metadata"]["uid"] += "-new"

        cluster.disturb([], at(number, act))
        outcome = expand(cluster)
        assert states(outcome) == {"a": "gone"}
        assert kinds(cluster) == [("persistentvolumes", "a")][:number]
        assert not again or "deleted and made again" in outcome.items[0]["reason"]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_change_whose_answer_was_lost_is_not_made_again(lost: int, cluster: Cluster) -> None:
    bound(cluster, "a")
    cluster.patches_meet(*[""] * lost, "lost")
    outcome = expand(cluster)
    assert states(outcome) == {"a": "changed"}
    assert sizes(cluster, "a") == ("2Gi",) * 3
    assert len(cluster.effects) == 3


def test_a_csi_claim_whose_only_answer_was_lost_has_changed(cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)
    cluster.patches_meet("lost")
    outcome = expand(cluster, wait=False)
    assert (states(outcome), outcome.changed) == ({"a": "changed"}, True)
    assert outcome.items[0]["done"] == ["by a request whose answer was lost"]


def test_a_failure_in_the_middle_says_what_was_done_and_the_next_run_does_the_rest(cluster: Cluster) -> None:
    bound(cluster, "a")
    bound(cluster, "b")
    cluster.fate = lambda method, path: "forbidden" if method == "PATCH" and path.endswith("/status") else ""
    outcome = expand(cluster, on_error="stop")
    assert states(outcome) == {"a": "failed", "b": "not_started"}
    assert "needs verb patch on persistentvolumeclaims/status" in outcome.problem
    assert "done before: volume; the next run does the rest" in outcome.problem
    assert sizes(cluster, "a") == ("2Gi", "1Gi", "1Gi")
    cluster.calm()
    assert states(expand(cluster)) == {"a": "changed", "b": "changed"}
    assert sizes(cluster, "a") == ("2Gi",) * 3


def test_what_cannot_be_read_again_has_failed(cluster: Cluster) -> None:
    bound(cluster, "a")
    cluster.disturb([], at(0, lambda: cluster.change("persistentvolumes", "a", {"metadata": {"labels": {"x": "y"}}})))
    cluster.fate = lambda method, path: "forbidden" if (method, path[-2:]) == ("GET", "/a") else ""
    outcome = expand(cluster)
    assert states(outcome) == {"a": "failed"}
    assert "verb get" in outcome.problem


# What is meant -----------------------------------------------------------------------------------------


def test_claims_that_are_named_must_be_there_and_those_of_a_selection_may_be_refused(cluster: Cluster) -> None:
    bound(cluster, "a")
    bound(cluster, "doomed", persistentVolumeReclaimPolicy="Delete")
    outcome = expand(cluster, **of("a", "doomed", "none"), on_error="stop")
    assert states(outcome) == {"a": "not_started", "doomed": "refused", "none": "gone"}
    assert "nothing was done since on_error is stop: shop/doomed its volume doomed has policy" in outcome.problem
    outcome = expand(cluster, **of("a", "doomed", "none"))
    assert states(outcome) == {"a": "changed", "doomed": "refused", "none": "gone"}
    assert outcome.problem.startswith("2 of 3 claims are not as asked for: shop/doomed (refused)")
    assert (expand(cluster).problem, sizes(cluster, "doomed")) == ("", ("1Gi",) * 3)
    assert states(expand(cluster, allow_delete_policy=True))["doomed"] == "changed"


def test_over_the_limit_nothing_at_all_is_done(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        bound(cluster, name)
    outcome = expand(cluster, max_changes="2")
    assert set(states(outcome).values()) == {"not_started"}
    assert "3 volumes would be changed, but max_changes is 2" in outcome.problem
    assert (cluster.effects, outcome.changed) == ([], False)
    assert expand(cluster, max_changes="100%").problem == ""


def test_shares_say_by_how_much_they_promise_too_much(cluster: Cluster) -> None:
    bound(cluster, "a")
    servers = [{"name": "s", "shares": [{"server_path": "/nfs", "client_path": "/nfs", "size": "1Gi"}]}]
    outcome = expand(cluster, storage_servers=servers)
    assert [(one["path"], one["overcommitted"]) for one in outcome.more["shares"]] == [("/nfs", 2**30)]
    assert outcome.more["quotas"][0]["server_dir"] == "/nfs/a"


def planned(cluster: Cluster, folder: Path) -> str:
    listing = _listing.read(client(cluster, workers=1), Selection({}), plan_for="expand")
    _listing.result(listing, str(folder / "listing"))
    given = {"action": "expand", "plan": None, "listing": str(folder / "listing"), "host": "localhost"}
    file = folder / "plan.json"
    file.write_text(_plan.write(_planner.plan({**given, "max_changes": None, "expand": ALL}).plan))
    return str(file)


def run_plan(cluster: Cluster, file: str) -> Outcome:
    return expand(cluster, plan=file, selection=None, size=None)


def test_a_plan_is_run_to_the_letter_and_no_further(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("a", "begun", "changed", "done", "gone", "later"):
        bound(cluster, name)
    file = planned(cluster, tmp_path)
    two = {"capacity": {"storage": "2Gi"}}
    cluster.change("persistentvolumes", "begun", {"spec": two})
    cluster.change("persistentvolumeclaims", "changed", LABELLED, "shop")
    cluster.change("persistentvolumes", "done", {"spec": two})
    cluster.change(
        "persistentvolumeclaims", "done", {"spec": {"resources": {"requests": two["capacity"]}}, "status": two}, "shop"
    )
    cluster.remove("persistentvolumeclaims", "gone", "shop")
    cluster.before_patch = lambda key: (
        cluster.change(key[0], key[2], {"metadata": {"labels": {"by": "other"}}}, key[1]) if key[2] == "later" else None
    )
    outcome = run_plan(cluster, file)
    assert states(outcome) == {
        "a": "changed",
        "begun": "changed",
        "changed": "stale",
        "done": "unchanged",
        "gone": "gone",
        "later": "stale",
    }
    assert {name for _resource, name in kinds(cluster)} == {"a", "begun"}
    assert outcome.plan_id == _plan.load(file)["id"]


def test_a_fault_does_not_stretch_a_plan(cluster: Cluster, tmp_path: Path) -> None:
    """An answer that was lost may hide a change of ours, but not one of somebody else."""
    for fault, state in (("error after", "changed"), ("error", "stale")):
        cluster.clear()
        bound(cluster, "a")
        file = planned(cluster, tmp_path)
        if fault == "error":
            cluster.disturb([], at(0, lambda: cluster.change("persistentvolumes", "a", LABELLED)))
        cluster.patches_meet(fault)
        assert states(run_plan(cluster, file)) == {"a": state}


def test_a_plan_is_for_one_cluster(cluster: Cluster, tmp_path: Path) -> None:
    bound(cluster, "a")
    file = planned(cluster, tmp_path)
    cluster.clear()  # another kube-system, another uid
    bound(cluster, "a")
    with pytest.raises(ValueError, match="the plan is for another cluster"):
        run_plan(cluster, file)
    assert cluster.effects == []


def resizer(cluster: Cluster, names: Sequence[str], condition: str = "") -> None:
    """What external-resizer does: the volume, then the status of the claim; or a condition that says why not."""
    for name in names:
        if condition:
            said = {"conditions": [{"type": "FileSystemResizePending", "message": condition}]}
            cluster.change("persistentvolumeclaims", name, {"status": said}, "shop")
            continue
        cluster.change("persistentvolumes", name, {"spec": {"capacity": {"storage": "2Gi"}}})
        cluster.change("persistentvolumeclaims", name, {"status": {"capacity": {"storage": "2Gi"}}}, "shop")


def test_the_resizer_of_a_csi_volume_is_waited_for(cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)
    bound(cluster, "nfs")
    cluster.when_watched(lambda: resizer(cluster, ["a"]))
    outcome = expand(cluster, wait_timeout=10)
    assert (states(outcome), outcome.problem) == ({"a": "changed", "nfs": "changed"}, "")
    assert outcome.items[0]["capacity"] == "2Gi"
    assert "conditions" not in outcome.items[0]
    assert expand(cluster, wait_timeout=10).changed is False


def test_a_resizer_that_does_not_come_is_named_with_what_it_says(cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)
    assert states(expand(cluster, wait=False)) == {"a": "changed"}
    assert states(expand(cluster, wait=False)) == {"a": "pending"}
    resizer(cluster, ["a"], "no room")
    outcome = expand(cluster, wait_timeout=1)
    assert states(outcome) == {"a": "failed"}
    assert "has not enlarged it after 1 s; does it run? FileSystemResizePending: no room" in outcome.problem
    assert "conditions" not in outcome.items[0]


@pytest.mark.parametrize("expired", [False, True])
def test_a_claim_that_is_deleted_while_it_is_waited_for_is_gone(expired: bool, cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)

    def fate(_method: str, path: str) -> str:
        if "watch=1" in path and not cluster.oldest and ("persistentvolumeclaims", "shop", "a") in cluster.things:
            cluster.remove("persistentvolumeclaims", "a", "shop")
            if expired:
                cluster.expire()
        return ""

    cluster.fate = fate
    assert states(expand(cluster, wait_timeout=10)) == {"a": "gone"}


def test_a_watch_that_expired_is_begun_with_a_new_list(cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)

    def fate(_method: str, path: str) -> str:
        if "watch=1" in path and not cluster.oldest:
            resizer(cluster, ["a"])
            cluster.expire()
        return ""

    cluster.fate = fate
    assert states(expand(cluster, wait_timeout=10)) == {"a": "changed"}


@pytest.mark.parametrize("what", ["watch=1", "limit=500"])
def test_a_wait_that_is_not_allowed_tells_all_that_was_done(what: str, cluster: Cluster) -> None:
    bound(cluster, "a", source=CSI)
    bound(cluster, "b")
    cluster.fate = lambda _method, path: "forbidden" if what in path and len(cluster.effects) == 4 else ""
    outcome = expand(cluster)
    assert (states(outcome), outcome.changed) == ({"a": "failed", "b": "changed"}, True)
    assert "needs verb" in outcome.problem
