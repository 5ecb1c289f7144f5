# SPDX-License-Identifier: GPL-3.0-or-later
"""How each volume ends when others are faster, answers get lost, or the API says no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _plan, _planner, _reclaim_run
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PROVISIONED_BY
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, Key, client
from ansible_collections.clusterkit.storage.tests.reclaimed import (
    ALL,
    CLAIM,
    labelled,
    pv,
    reclaim,
    release_controller,
    states,
)


def first(count: int, act: Callable[[Key], object]) -> Callable[[Key], None]:
    """Others act right before the first patches are judged."""
    left = [act] * count

    def before_patch(key: Key) -> None:
        if left:
            left.pop()(key)

    return before_patch


def test_another_ones_change_is_read_and_kept(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.before_patch = first(3, labelled(cluster))
    assert states(reclaim(cluster)) == {"a": "changed"}
    volume = cluster.get("persistentvolumes", "a")
    assert volume["metadata"]["labels"] == {"by": "other"}
    assert volume["spec"]["claimRef"] == {"namespace": "shop", "name": "data"}


def test_a_volume_that_is_bound_by_then_is_judged_anew_and_left_alone(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.before_patch = first(1, lambda key: cluster.change(key[0], key[2], {"status": {"phase": "Bound"}}))
    outcome = reclaim(cluster)
    assert states(outcome) == {"a": "refused"}
    assert "is Bound" in outcome.items[0]["reason"]
    assert cluster.effects == []


def test_what_somebody_else_has_done_by_then_is_not_claimed(cluster: Cluster) -> None:
    pv(cluster, "a")
    done = {"spec": {"claimRef": {"uid": None}}, "status": {"phase": "Available"}}
    cluster.before_patch = first(1, lambda key: cluster.change(key[0], key[2], done))
    outcome = reclaim(cluster)
    assert (states(outcome), outcome.changed, cluster.effects) == ({"a": "unchanged"}, False, [])


def answer_lost(cluster: Cluster, then: Callable[[], object]) -> None:
    """The first patch is carried out, its answer is lost, and more happens before it is sent again."""
    seen: list[str] = []

    def fate(method: str, _path: str) -> str:
        if method != "PATCH":
            return ""
        seen.append(method)
        if len(seen) == 2:
            then()
        return "lost" if len(seen) == 1 else ""

    cluster.fate = fate


@pytest.mark.parametrize("release", ["open", "reserved"])
def test_a_change_whose_answer_was_lost_counts_as_ours(release: str, cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.controller = release_controller(cluster)
    cluster.patches_meet("lost")
    assert states(reclaim(cluster, release=release)) == {"a": "changed"}
    assert len(cluster.effects) == 1


def test_so_it_does_when_a_claim_has_taken_it_already(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.controller = release_controller(cluster)
    taken = {"spec": {"claimRef": {"uid": "c2"}}, "status": {"phase": "Bound"}}
    answer_lost(cluster, lambda: cluster.change("persistentvolumes", "a", taken))
    outcome = reclaim(cluster)
    assert states(outcome) == {"a": "changed"}
    assert "is Bound to shop/data by now" in outcome.items[0]["note"]


@pytest.mark.parametrize("release", ["open", "reserved"])
def test_what_others_may_have_done_alone_is_not_claimed(release: str, cluster: Cluster) -> None:
    """A volume to be opened is bound by the claim it was kept for; one to be reserved is opened, and bound."""
    if release == "open":
        kept = {key: value for key, value in CLAIM.items() if key != "uid"}
        pv(cluster, "a", claimRef=kept)
        cluster.change("persistentvolumes", "a", {"status": {"phase": "Available"}})
    else:
        pv(cluster, "a")
    cluster.patches_meet("unavailable")
    reference = {**CLAIM, "uid": "c2", "name": "data" if release == "open" else "other"}
    taken = {"spec": {"claimRef": reference}, "status": {"phase": "Bound"}}
    cluster.before_patch = first(1, lambda key: cluster.change(key[0], key[2], taken))
    outcome = reclaim(cluster, release=release)
    assert (states(outcome), cluster.effects) == ({"a": "refused"}, [])
    assert "is Bound" in outcome.items[0]["reason"]


def test_neither_is_a_label_that_is_not_there(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.patches_meet("unavailable")
    taken = {"spec": {"claimRef": {"uid": "c2"}}, "status": {"phase": "Bound"}}
    cluster.before_patch = first(1, lambda key: cluster.change(key[0], key[2], taken))
    assert states(reclaim(cluster, labels={"run": "one"})) == {"a": "refused"}


def test_what_is_gone_or_another_one_by_now_is_said(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        pv(cluster, name)

    def act(key: Key) -> None:
        if key[2] in ("a", "b"):
            cluster.remove(key[0], key[2])
        if key[2] == "b":
            pv(cluster, "b")

    cluster.before_patch = act
    assert states(reclaim(cluster)) == {"a": "gone", "b": "stale", "c": "changed"}
    assert [one.key[2] for one in cluster.effects] == ["c"]


def test_what_was_deleted_while_it_was_looked_at_again_is_gone(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.before_patch = first(1, labelled(cluster))

    def fate(method: str, path: str) -> str:
        if (method, path) == ("GET", "/api/v1/persistentvolumes/a"):
            cluster.remove("persistentvolumes", "a")
        return ""

    cluster.fate = fate
    assert states(reclaim(cluster)) == {"a": "gone"}


def test_after_an_error_the_others_are_done_or_not_begun(cluster: Cluster) -> None:
    for on_error, expected in (("continue", ["failed", "changed"]), ("stop", ["failed", "not_started"])):
        cluster.clear()
        pv(cluster, "a")
        pv(cluster, "b")
        cluster.patches_meet("forbidden")
        outcome = reclaim(cluster, on_error=on_error)
        assert list(states(outcome).values()) == expected
        assert "the role of this user needs verb patch on persistentvolumes" in outcome.problem


def test_what_cannot_be_read_again_has_failed(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.before_patch = first(1, labelled(cluster))
    cluster.fate = lambda method, path: "forbidden" if (method, path[-2:]) == ("GET", "/a") else ""
    outcome = reclaim(cluster)
    assert states(outcome) == {"a": "failed"}
    assert "verb get" in outcome.problem


def test_a_volume_that_others_change_for_ever_is_given_up(cluster: Cluster) -> None:
    pv(cluster, "a")
    cluster.before_patch = labelled_each_time(cluster)
    outcome = reclaim(cluster, retry_timeout=0)
    assert states(outcome) == {"a": "failed"}
    assert "others changed it all the time for 0 s" in outcome.problem
    assert cluster.effects == []


def labelled_each_time(cluster: Cluster) -> Callable[[Key], object]:
    return lambda key: cluster.change(key[0], key[2], {"metadata": {"labels": {"at": str(cluster.version)}}})


# What is meant -----------------------------------------------------------------------------------------


def test_all_of_it_is_one_patch_and_shown_as_a_difference(cluster: Cluster) -> None:
    pv(cluster, "a", persistentVolumeReclaimPolicy="Delete")
    outcome = reclaim(
        cluster, policy="Retain", labels={"run": "one"}, annotations={"example.com/why": "test"},
        time_annotation="example.com/at",
    )  # fmt: skip
    assert states(outcome) == {"a": "changed"}
    (effect,) = cluster.effects
    assert effect.after["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert effect.after["spec"]["claimRef"] == {"namespace": "shop", "name": "data"}
    assert effect.after["metadata"]["labels"] == {"run": "one"}
    assert set(effect.after["metadata"]["annotations"]) == {"example.com/why", "example.com/at"}
    (difference,) = outcome.diffs
    assert "persistentVolumeReclaimPolicy: Delete\nclaimRef: shop, data, c1\n" in difference["before"]
    assert "persistentVolumeReclaimPolicy: Retain\nclaimRef: shop, data\n" in difference["after"]
    assert "labels.run: one" in difference["after"]


def test_check_mode_says_what_would_be_and_keeps_nothing(cluster: Cluster) -> None:
    pv(cluster, "a")
    before = dict(cluster.things)
    outcome = reclaim(cluster, check_mode=True, wait=True)
    assert (states(outcome), outcome.changed) == ({"a": "changed"}, True)
    assert cluster.things == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"selection": None, "volumes": []}, "no volume means none, never all"),
        ({"selection": {}}, "never means all"),
        ({"selection": {"names": []}}, "selection.names is empty"),
        ({"release": None}, "nothing is asked for"),
    ],
)
def test_what_makes_no_sense_changes_nothing(given: dict[str, Any], words: str, cluster: Cluster) -> None:
    pv(cluster, "a")
    with pytest.raises(ValueError, match=words):
        reclaim(cluster, **given)
    assert cluster.effects == []


def test_volumes_that_are_named_must_be_there_and_as_asked_for(cluster: Cluster) -> None:
    pv(cluster, "a")
    pv(cluster, "b", claimRef=None)
    outcome = reclaim(cluster, selection=None, volumes=["c", "b", "a"])
    assert states(outcome) == {"a": "changed", "b": "refused", "c": "gone"}
    assert outcome.problem.startswith("2 of 3 volumes are not as asked for: b (refused) is Released and names no claim")
    # A selection means those that can be released.
    assert reclaim(cluster).problem == ""


def test_a_long_list_of_problems_is_cut_and_a_long_list_of_names_is_read_at_once(cluster: Cluster) -> None:
    names = [f"pv-{number:03d}" for number in range(101)]
    for name in names[:-6]:
        pv(cluster, name)
    outcome = reclaim(cluster, selection=None, volumes=names)
    assert set(states(outcome).values()) == {"changed", "gone"}
    assert outcome.problem.endswith("pv-099 (gone) does not exist; and 1 more, see volumes")
    assert not [one for one in cluster.asked if one.startswith("GET /api/v1/persistentvolumes/")]


def test_over_the_limit_or_with_a_wrong_name_nothing_at_all_is_done(cluster: Cluster) -> None:
    pv(cluster, "a")
    pv(cluster, "b")
    pv(cluster, "c", claimRef=None)
    outcome = reclaim(cluster, max_changes="50%", selection={"names": ["a", "b"]})
    assert states(outcome) == {"a": "changed", "b": "changed"}, "half of three, rounded up"
    cluster.clear()
    pv(cluster, "a")
    pv(cluster, "b")
    outcome = reclaim(cluster, max_changes="50%")
    assert states(outcome) == {"a": "not_started", "b": "not_started"}
    assert "2 volumes would be changed, but max_changes is 50%, which is 1 of 2 volumes" in outcome.problem
    outcome = reclaim(cluster, selection=None, volumes=["a", "b", "none"], on_error="stop")
    assert states(outcome) == {"a": "not_started", "b": "not_started", "none": "gone"}
    assert outcome.problem == "nothing was done since on_error is stop: none does not exist"
    assert (cluster.effects, outcome.changed) == ([], False)


def test_a_namespace_is_protected_by_its_label_or_by_name(cluster: Cluster) -> None:
    pv(cluster, "a")
    for protected in ([], ["shop"]):
        if not protected:
            cluster.add("namespaces", "shop", metadata={"labels": {"storage.clusterkit/protected": "true"}})
        outcome = reclaim(cluster, protected_namespaces=protected)
        assert states(outcome) == {"a": "refused"}
        assert 'protected namespace "shop"' in outcome.items[0]["reason"]
        cluster.remove("namespaces", "shop") if not protected else None


def test_a_claim_that_lives_or_a_pod_that_empties_keeps_the_volume(cluster: Cluster) -> None:
    pv(cluster, "claimed")
    for name in ("by-name", "by-place", "left"):
        nfs = {"server": "s", "path": f"/nfs/{name}"}
        pv(cluster, name, csi=None, nfs=nfs, claimRef={"namespace": "shop", "name": name, "uid": "c9"})
    cluster.add("persistentvolumeclaims", "data", "shop", uid="c1", status={"phase": "Lost"})
    # The pods of two volumes that are emptied at once may have swapped their volumes.
    mounts = [{"nfs": {"server": "s", "path": "/nfs/by-place"}}]
    cluster.add("pods", "recycler-for-by-name", "default", spec={"volumes": mounts}, status={"phase": "Running"})
    cluster.add("pods", "recycler-for-left", "default", spec={"volumes": []}, status={"phase": "Succeeded"})
    outcome = reclaim(cluster)
    assert states(outcome) == {"by-name": "refused", "by-place": "refused", "claimed": "refused", "left": "changed"}
    assert [item["reason"] for item in outcome.items[:3]] == [
        "a recycler pod is emptying it",
        "a recycler pod is emptying it",
        "its claim shop/data still exists",
    ]


@pytest.mark.parametrize(
    ("renewed", "state"), [("2026-01-01T00:00:00Z", "changed"), ("2999-01-01T00:00:00Z", "refused")]
)
def test_who_might_be_deleting_it_must_have_stopped(renewed: str, state: str, cluster: Cluster) -> None:
    metadata = {"annotations": {PROVISIONED_BY: "example.com/nfs"}}
    spec = {"nfs": {"server": "s", "path": "/a"}, "persistentVolumeReclaimPolicy": "Delete", "claimRef": CLAIM}
    cluster.add("persistentvolumes", "a", metadata=metadata, spec=spec, status={"phase": "Failed"})
    cluster.add("leases", "example.com-nfs", "x", spec={"holderIdentity": "me", "renewTime": renewed})
    outcome = reclaim(cluster, policy="Retain")
    assert states(outcome) == {"a": state}
    if state == "refused":
        assert "its provisioner example.com/nfs is running" in outcome.items[0]["reason"]


# Plans ---------------------------------------------------------------------------------------------------


def planned(cluster: Cluster, folder: Path, **request: Any) -> str:
    """The file of a plan for all volumes, made from a listing of them."""
    api = client(cluster, workers=1)
    listing = _listing.read(api, Selection(ALL["selection"]), plan_for="reclaim")
    _listing.result(listing, str(folder / "listing"))
    given = {"action": "reclaim", "plan": None, "listing": str(folder / "listing"), "host": "localhost"}
    made = _planner.plan({**given, "max_changes": None, "reclaim": request}).plan
    file = folder / "plan.json"
    file.write_text(_plan.write(made))
    return str(file)


def run_plan(cluster: Cluster, file: str) -> Outcome:
    return reclaim(cluster, plan=file, selection=None, release=None)


def test_a_plan_is_run_to_the_letter_and_no_further(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        pv(cluster, name)
    file = planned(cluster, tmp_path, release="reserved")
    labelled(cluster)(("persistentvolumes", "", "b"))
    cluster.remove("persistentvolumes", "c")
    cluster.change("persistentvolumes", "d", {"spec": {"claimRef": {"uid": None}}, "status": {"phase": "Available"}})
    cluster.before_patch = lambda key: labelled(cluster)(key) if key[2] == "e" else None
    pv(cluster, "later")
    outcome = run_plan(cluster, file)
    assert states(outcome) == {"a": "changed", "b": "stale", "c": "gone", "d": "unchanged", "e": "stale"}
    assert [one.key[2] for one in cluster.effects] == ["a"]
    assert outcome.plan_id == _plan.load(file)["id"]
    assert "2 of 5" not in outcome.problem and outcome.problem.startswith("3 of 5 volumes are not as asked for")


def test_a_plan_is_for_one_cluster(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a")
    file = planned(cluster, tmp_path, release="reserved")
    cluster.clear()  # another kube-system, another uid
    pv(cluster, "a")
    with pytest.raises(ValueError, match="the plan is for another cluster"):
        run_plan(cluster, file)
    assert cluster.effects == []


def test_an_outcome_counts_every_state() -> None:
    found = _reclaim_run.summary([{"state": "changed"}, {"state": "changed"}, {"state": "gone"}])
    assert (found["changed"], found["gone"], found["failed"]) == (2, 1, 0)
