# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to requests, and whatever others do in between: no volume comes to a state nobody asked for."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _plan, _planner, _reclaim_run
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import BOUND_BY_CONTROLLER, PROVISIONED_BY
from ansible_collections.clusterkit.storage.plugins.modules import pv_reclaim
from ansible_collections.clusterkit.storage.tests.api_server import (
    PASSING,
    UNCERTAIN,
    Cluster,
    Effect,
    Thing,
    arguments,
    client,
    timed,
)
from ansible_collections.clusterkit.storage.tests.properties import examples
from ansible_collections.clusterkit.storage.tests.reclaimed import release_controller
from hypothesis import event, given
from hypothesis import strategies as st

ALL = {"names": ["*"]}
DESTROYING = ("Delete", "Recycle")

RELEASED = {
    "phase": "Released", "policy": "Retain", "source": "csi", "claim": "gone", "namespace": "shop", "deleting": False,
}  # fmt: skip
# Half of the volumes can be released, and all requests make sense: otherwise chance would hardly come to a change.
volumes = st.one_of(
    st.just(RELEASED),
    st.fixed_dictionaries(
        {
            "phase": st.sampled_from(["Released", "Failed", "Bound", "Available"]),
            "policy": st.sampled_from(["Retain", "Retain", "Delete", "Recycle"]),
            "source": st.sampled_from(["static", "dynamic", "csi", "other"]),
            "claim": st.sampled_from(["none", "gone", "gone", "lives", "came again"]),
            "namespace": st.sampled_from(["shop", "shop", "shop", "vault"]),
            "deleting": st.sampled_from([False, False, False, True]),
        }
    ),
)
labels = st.sampled_from([{}, {"run": "one"}, {"old": None}])
requests = st.one_of(
    st.fixed_dictionaries(
        {
            "policy": st.sampled_from([None, "Retain"]),
            "release": st.sampled_from(["open", "reserved"]),
            "labels": labels,
            "allow_future_deletion": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["Retain", *DESTROYING]),
            "release": st.none(),
            "labels": labels,
            "allow_future_deletion": st.just(True),
        }
    ),
)
ACTS = ("label", "bind", "remove", "replace", "open", "claim again", "set Delete")
acts = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ACTS), st.integers(0, 1)), max_size=3)
fates = st.lists(st.sampled_from(["", "", "", "", *PASSING]), max_size=20)


def _place(reference: Mapping[str, str]) -> tuple[str, str]:
    return reference["namespace"], reference["name"]


def source_of(kind: str, number: int) -> Thing:
    if kind == "other":
        return {"hostPath": {"path": "/x"}}
    return {"csi": {"driver": "d"}} if kind == "csi" else {"nfs": {"server": "s", "path": f"/nfs/{number}"}}


def add_volume(cluster: Cluster, number: int, given: Mapping[str, Any], uid: str = "") -> None:
    name, bound = f"pv-{number}", given["phase"] == "Bound"
    reference: Thing | None = {"namespace": given["namespace"], "name": f"claim-{number}", "uid": f"c{number}"}
    if given["phase"] == "Available":
        reference = None if given["claim"] == "none" else {**(reference or {}), "uid": None}
    elif given["claim"] == "none" and not bound:
        reference = None
    annotations = {BOUND_BY_CONTROLLER: "yes"} | ({PROVISIONED_BY: "p"} if given["source"] == "dynamic" else {})
    metadata: Thing = {"labels": {"old": "yes"}, "annotations": annotations}
    if given["deleting"]:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"persistentVolumeReclaimPolicy": given["policy"], **source_of(given["source"], number)}
    spec |= {"claimRef": {key: value for key, value in reference.items() if value}} if reference else {}
    status = {"phase": given["phase"]}
    cluster.add("persistentvolumes", name, uid=uid, metadata=metadata, spec=spec, status=status)


def add_claim(cluster: Cluster, number: int, given: Mapping[str, Any]) -> None:
    if given["claim"] == "came again" or given["phase"] == "Bound" or given["claim"] == "lives":
        again = given["claim"] == "came again" and given["phase"] != "Bound"
        uid = "again" if again else f"c{number}"
        status = {"phase": "Bound"}  # so that the controller gives it nothing
        cluster.add("persistentvolumeclaims", f"claim-{number}", given["namespace"], uid=uid, status=status)


class World:
    def __init__(self, cluster: Cluster, given: list[Thing], running: bool) -> None:
        self.cluster = cluster
        cluster.clear()
        renewed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() if running else 0))
        cluster.add("leases", "p", "kube-system", spec={"holderIdentity": "me", "renewTime": renewed})
        cluster.add("namespaces", "vault", metadata={"labels": {"storage.clusterkit/protected": "true"}})
        for number, one in enumerate(given):
            add_volume(cluster, number, one)
            add_claim(cluster, number, one)
        found = cluster.things.items()
        self.claims = {key[1:]: one["metadata"]["uid"] for key, one in found if key[0] == "persistentvolumeclaims"}
        self.claims_came: dict[tuple[str, str], int] = {}  # later ones: at which version
        self.known = {one["metadata"]["uid"] for _key, one in found}
        cluster.controller = release_controller(cluster)
        self.running = running
        self.met: set[str] = set()

    def act(self, what: str, number: int) -> None:
        """What somebody else does to a volume; nothing when it is not there any more."""
        cluster, name = self.cluster, f"pv-{number}"
        if ("persistentvolumes", "", name) not in cluster.things:
            return
        volume = cluster.get("persistentvolumes", name)
        reference, phase = volume["spec"].get("claimRef"), volume["status"]["phase"]
        if what == "label":
            cluster.change("persistentvolumes", name, {"metadata": {"labels": {"by": "other"}}})
        elif what == "bind" and phase == "Available":
            theirs = {"namespace": "shop", "name": f"claim-{number}", "uid": "theirs"}
            cluster.change("persistentvolumes", name, {"spec": {"claimRef": theirs}, "status": {"phase": "Bound"}})
        elif what == "remove":
            cluster.remove("persistentvolumes", name)
        elif what == "replace":
            cluster.remove("persistentvolumes", name)
            add_volume(cluster, number, RELEASED)
        elif what == "open" and phase in ("Released", "Failed"):
            cluster.change("persistentvolumes", name, {"spec": {"claimRef": None}})
        elif (
            what == "claim again" and reference and ("persistentvolumeclaims", *_place(reference)) not in cluster.things
        ):
            cluster.add("persistentvolumeclaims", reference["name"], reference["namespace"], status={"phase": "Bound"})
            self.claims_came[_place(reference)] = cluster.version
            # An administrator who gives the name away again has looked at the volume, and labels it.
            cluster.change("persistentvolumes", name, {"metadata": {"labels": {"by": "other"}}})
        elif what == "set Delete" and phase == "Bound":
            cluster.change("persistentvolumes", name, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})

    def run(self, request: Thing, *, plan: str | None = None, **more: Any) -> Outcome:
        asked = {"plan": plan} if plan else {"selection": ALL, **request}
        given = arguments(pv_reclaim.ARGUMENTS, **asked, **more)
        return _reclaim_run.reclaim(client(self.cluster, workers=1), given, check_mode=False, diff=False)

    def disturb(self, acts: list[tuple[int, str, int]], fates: list[str]) -> None:
        self.met = self.cluster.disturb(fates, timed(acts, self.act))

    def calm(self) -> None:
        self.cluster.calm()
        self.known = {one["metadata"]["uid"] for one in self.cluster.things.values()}

    def judge(self, effect: Effect, request: Thing) -> None:
        """A change is what was asked for, all of it, and nothing that must not be."""
        before, after = effect.before, effect.after
        assert after["metadata"]["uid"] in self.known, "another volume of that name"
        policy, was = (one["spec"]["persistentVolumeReclaimPolicy"] for one in (after, before))
        assert policy == (request["policy"] or was)
        for key, value in request["labels"].items():
            assert after["metadata"]["labels"].get(key) == value
        untouched = {key: value for key, value in before["metadata"]["labels"].items() if key not in request["labels"]}
        assert untouched.items() <= after["metadata"]["labels"].items()
        gone = set(before["metadata"]["annotations"]) - set(after["metadata"]["annotations"])
        reference, had = after["spec"].get("claimRef"), before["spec"].get("claimRef")
        assert gone == ({BOUND_BY_CONTROLLER} & set(before["metadata"]["annotations"]) if reference != had else set())
        same = {"persistentVolumeReclaimPolicy", "claimRef"}
        for one in (before, after):
            assert "hostPath" not in one["spec"], "neither NFS nor CSI"
        assert {k: v for k, v in before["spec"].items() if k not in same} == {
            k: v for k, v in after["spec"].items() if k not in same
        }
        phase = before["status"]["phase"]
        if policy in DESTROYING and policy != was:
            assert request["allow_future_deletion"]
            assert phase in ("Bound", "Available") and "deletionTimestamp" not in before["metadata"]
            if had and had.get("uid"):
                assert self.claims.get(_place(had)) == had["uid"]
                assert had["namespace"] != "vault"
        if reference == had:
            return
        assert request["release"] and had
        assert reference == (
            None if request["release"] == "open" else {"namespace": had["namespace"], "name": had["name"]}
        )
        assert "deletionTimestamp" not in before["metadata"]
        assert had["namespace"] != "vault"
        assert phase in ("Released", "Failed") or (phase == "Available" and not had.get("uid"))
        if phase in ("Released", "Failed"):
            assert _place(had) not in self.claims
            assert self.claims_came.get(_place(had), self.cluster.version) >= int(after["metadata"]["resourceVersion"])
            assert was != "Recycle", "it may be emptied at this moment"
            assert not (was == "Delete" and PROVISIONED_BY in before["metadata"]["annotations"] and self.running)
        if phase != "Available":
            assert policy not in DESTROYING or request["allow_future_deletion"]


def is_as_wanted(volume: Thing, request: Thing) -> bool:
    labels, reference = volume["metadata"]["labels"], volume["spec"].get("claimRef")
    # A claim of the old name that has taken the volume, as it does once that is reserved.
    taken = volume["status"]["phase"] == "Bound" and reference and reference["uid"] == "theirs"
    return (
        request["policy"] in (None, volume["spec"]["persistentVolumeReclaimPolicy"])
        and all(labels.get(key) == value for key, value in request["labels"].items())
        and (request["release"] != "open" or reference is None)
        and (request["release"] != "reserved" or bool(taken or (reference and not reference.get("uid"))))
    )


def as_told(outcome: Outcome, cluster: Cluster, request: Thing, met: set[str]) -> None:
    """What is told of each volume is what was done."""
    effects, history = cluster.effects, cluster.history
    done = {one.key[2] for one in effects}
    for item in outcome.items:
        event(item["state"])
        ours = item["name"] in done
        if ours:
            assert item["state"] not in ("unchanged", "not_started")
        if not met & UNCERTAIN:
            assert ours is (item["state"] == "changed")
        if item["state"] in ("changed", "unchanged"):
            was = [one for _at, key, _kind, one in history if key[2] == item["name"]]
            assert any(is_as_wanted(one, request) for one in was), "it never came to what is told"
    assert done <= {item["name"] for item in outcome.items}
    bad = [item for item in outcome.items if item["state"] in ("stale", "failed", "not_started")]
    assert bool(bad) <= bool(outcome.problem)


@given(given=st.lists(volumes, min_size=1, max_size=2), request=requests, running=st.booleans(), acts=acts, fates=fates)
@examples(150)
def test_faults_and_rivals_lead_to_nothing_that_nobody_asked_for(
    served: Cluster,
    given: list[Thing],
    request: Thing,
    running: bool,
    acts: list[tuple[int, str, int]],
    fates: list[str],
) -> None:
    world = World(served, given, running)
    world.disturb(acts, fates)
    outcome = world.run(request)
    for effect in served.effects:
        world.judge(effect, request)
    as_told(outcome, served, request, world.met)
    if not acts:
        assert len({one.key for one in served.effects}) == len(served.effects), "something was done twice"

    # The next run does the rest, and the one after it has nothing to do.
    world.calm()
    second = world.run(request)
    for effect in served.effects:
        world.judge(effect, request)
    as_told(second, served, request, set())
    for item in second.items:
        assert item["state"] in ("changed", "unchanged", "refused"), item
        if item["state"] != "refused":
            volume = served.get("persistentvolumes", item["name"])
            assert is_as_wanted(volume, request)
            assert not request["release"] or volume["status"]["phase"] == "Available"
    world.calm()
    third = world.run(request)
    assert (served.effects, third.changed) == ([], False)
    assert {item["state"] for item in third.items} <= {"unchanged", "refused"}


@given(
    given=st.lists(volumes, min_size=1, max_size=2), request=requests, running=st.booleans(), acts=acts, fates=fates,
    between=acts,
)  # fmt: skip
@examples(100)
def test_a_plan_is_never_stretched(
    served: Cluster,
    given: list[Thing],
    request: Thing,
    running: bool,
    acts: list[tuple[int, str, int]],
    fates: list[str],
    between: list[tuple[int, str, int]],
) -> None:
    """What has changed since the plan was made is not touched, whatever it has become."""
    world = World(served, given, running)
    with tempfile.TemporaryDirectory() as folder:
        listing, file = f"{folder}/listing", Path(folder, "plan.json")
        _listing.result(_listing.read(client(served), Selection(ALL), plan_for="reclaim"), listing)
        asked = {"action": "reclaim", "plan": None, "listing": listing, "host": "h", "max_changes": None}
        plan = _planner.plan({**asked, "reclaim": request}).plan
        file.write_text(_plan.write(plan))
        for _at, what, number in between:
            world.act(what, number)
        world.disturb(acts, fates)
        outcome = world.run(request, plan=str(file))
    seen = {step["item"]: step["precondition"] for step in plan["steps"]}
    for effect in served.effects:
        world.judge(effect, request)
        metadata = effect.before["metadata"]
        assert seen[effect.key[2]] == {"uid": metadata["uid"], "resource_version": metadata["resourceVersion"]}
    as_told(outcome, served, request, world.met)
    assert [item["name"] for item in outcome.items] == [step["item"] for step in plan["steps"]]


@pytest.mark.parametrize("on_error", ["continue", "stop"])
@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_through_faults_are_each_done_once(on_error: str, seed: int, cluster: Cluster) -> None:
    """All workers together, in an order that nobody knows."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    for number in range(60):
        add_volume(cluster, number, RELEASED)
    cluster.controller = release_controller(cluster)
    cluster.fate = lambda _method, _path: chance.choice(PASSING) if chance.random() < 0.2 else ""
    request = {"release": "reserved", "labels": {"run": "one"}, "on_error": on_error}
    asked = arguments(pv_reclaim.ARGUMENTS, selection=ALL, **request)
    outcome = _reclaim_run.reclaim(client(cluster), asked, check_mode=False, diff=False)
    assert {item["state"] for item in outcome.items} == {"changed"}, outcome.problem
    assert sorted(one.key[2] for one in cluster.effects) == sorted(item["name"] for item in outcome.items)
