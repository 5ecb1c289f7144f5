# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to requests, and whatever others do in between: nothing shrinks, and the objects agree."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _expand_run,
    _listing,
    _plan,
    _planner,
    _quantity,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.modules import pvc_expand
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
from hypothesis import event, given
from hypothesis import strategies as st

ALL = {"names": ["*"]}
CLASSES = {"gold": True, "tin": False}
GIB = 2**30

# As the API and the controllers keep them: the claim has at most what its volume has. Most can grow to TARGET.
TARGET = 5
pairs = st.fixed_dictionaries(
    {
        "gib": st.lists(st.integers(1, 6), min_size=2, max_size=2).map(sorted),
        "request": st.integers(1, 6),
        "storage_class": st.sampled_from(["gold", "gold", "tin", ""]),
        "source": st.sampled_from(["nfs", "nfs", "csi", "other"]),
        "policy": st.sampled_from(["Retain", "Retain", "Retain", "Delete"]),
        "phase": st.sampled_from(["Bound", "Bound", "Bound", "Pending"]),
    }
)
ACTS = ("label claim", "label volume", "grow", "doom", "remove claim", "remove both", "replace")
acts = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(ACTS), st.integers(0, 1)), max_size=3)
fates = st.lists(st.sampled_from(["", "", "", "", *PASSING]), max_size=20)


class World:
    def __init__(self, cluster: Cluster, given: list[Thing]) -> None:
        self.cluster = cluster
        self.sources: dict[str, str] = {}  # by uid of the claim
        cluster.clear()
        for name, expands in CLASSES.items():
            cluster.add("storageclasses", name, provisioner="p", allowVolumeExpansion=expands)
        for number, one in enumerate(given):
            self.add(number, one)
        self.known = {one["metadata"]["uid"] for one in cluster.things.values()}
        self.met: set[str] = set()

    def add(self, number: int, given: Thing, generation: int = 1) -> None:
        name, uid = f"c{number}", f"claim-{number}-{generation}"
        self.sources[uid] = given["source"]
        has, room = (f"{size}Gi" for size in given["gib"])
        sources = {"nfs": {"nfs": {"server": "s", "path": "/a"}}, "csi": {"csi": {"driver": "d"}}}
        self.cluster.add(
            "persistentvolumeclaims", name, "shop", uid=uid,
            spec={
                "storageClassName": given["storage_class"],
                "volumeName": name,
                "resources": {"requests": {"storage": f"{given['request']}Gi"}},
            },
            status={"phase": given["phase"], "capacity": {"storage": has}},
        )  # fmt: skip
        spec = {"capacity": {"storage": room}, "persistentVolumeReclaimPolicy": given["policy"]}
        spec |= {"claimRef": {"namespace": "shop", "name": name, "uid": uid}}
        spec |= sources.get(given["source"], {"hostPath": {"path": "/x"}})
        self.cluster.add(
            "persistentvolumes", name, uid=f"pv-{number}-{generation}", spec=spec, status={"phase": "Bound"}
        )

    def act(self, what: str, number: int) -> None:
        """What somebody else does; nothing when the objects are not there any more."""
        cluster, name = self.cluster, f"c{number}"
        volume, claim = ("persistentvolumes", "", name), ("persistentvolumeclaims", "shop", name)
        if volume not in cluster.things or claim not in cluster.things:
            return
        if what == "label claim":
            cluster.change("persistentvolumeclaims", name, {"metadata": {"labels": {"by": "other"}}}, "shop")
        elif what == "label volume":
            cluster.change("persistentvolumes", name, {"metadata": {"labels": {"by": "other"}}})
        elif what == "grow":
            cluster.change("persistentvolumes", name, {"spec": {"capacity": {"storage": f"{TARGET + 2}Gi"}}})
        elif what == "doom":
            cluster.change("persistentvolumes", name, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
        else:
            cluster.remove("persistentvolumeclaims", name, "shop")
            if what in ("remove both", "replace"):
                cluster.remove("persistentvolumes", name)
            if what == "replace":
                fresh = {"gib": [1, 1], "request": 1, "storage_class": "gold", "source": "nfs"}
                self.add(number, {**fresh, "policy": "Retain", "phase": "Bound"}, generation=2)

    def disturb(self, acts: list[tuple[int, str, int]], fates: list[str]) -> None:
        self.met = self.cluster.disturb(fates, timed(acts, self.act))

    def calm(self) -> None:
        self.cluster.calm()
        self.known = {one["metadata"]["uid"] for one in self.cluster.things.values()}

    def run(self, allow: bool = False, *, plan: str | None = None, **more: Any) -> Outcome:
        asked: Thing = {"plan": plan} if plan else {"selection": ALL, "size": f"{TARGET}Gi"}
        asked |= {"allow_delete_policy": allow, "wait": False, **more}
        given = arguments(pvc_expand.ARGUMENTS, **asked)
        return _expand_run.expand(client(self.cluster, workers=1), given, check_mode=False, diff=False)

    def sizes(self, name: str) -> tuple[int, int, int]:
        """Of the volume, what the claim has, what it asks for; in GiB."""
        claim = self.cluster.get("persistentvolumeclaims", name, "shop")
        found = (
            self.cluster.get("persistentvolumes", name)["spec"]["capacity"]["storage"],
            claim["status"]["capacity"]["storage"],
            claim["spec"]["resources"]["requests"]["storage"],
        )
        volume, has, asks = (_quantity.to_bytes(one) // GIB for one in found)
        return volume, has, asks


def told_size(one: Thing) -> tuple[str, ...]:
    """The sizes that an object holds: a volume one, a claim two."""
    spec = one["spec"]
    if "capacity" in spec:
        return (spec["capacity"]["storage"],)
    return one["status"]["capacity"]["storage"], spec["resources"]["requests"]["storage"]


def without_sizes(one: Thing) -> Thing:
    spec = {key: value for key, value in one["spec"].items() if key not in ("capacity", "resources")}
    status = {key: value for key, value in one["status"].items() if key != "capacity"}
    metadata = {key: value for key, value in one["metadata"].items() if key != "resourceVersion"}
    return {"metadata": metadata, "spec": spec, "status": status}


def judge(world: World, effect: Effect, allow: bool, volumes: dict[str, int]) -> None:
    """One size has grown to what was asked for, nothing else has changed, and the volume is never the smaller one."""
    before, after = effect.before, effect.after
    assert after["metadata"]["uid"] in world.known, "another object of that name"
    assert without_sizes(before) == without_sizes(after)
    grown = [(old, new) for old, new in zip(told_size(before), told_size(after), strict=True) if old != new]
    assert len(grown) == 1
    assert grown[0][1] == f"{TARGET}Gi" and _quantity.to_bytes(grown[0][0]) < TARGET * GIB
    if effect.key[0] == "persistentvolumes":
        assert allow or before["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
        assert "nfs" in before["spec"], "a CSI volume is its driver's to grow"
        volumes[effect.key[2]] = TARGET
    else:
        assert before["status"]["phase"] == "Bound"
        is_csi = world.sources[before["metadata"]["uid"]] == "csi"
        assert is_csi or volumes[effect.key[2]] >= TARGET
        assert not is_csi or told_size(before)[0] == told_size(after)[0], "its resizer says what it has"


def as_told(outcome: Outcome, effects: list[Effect], met: set[str]) -> None:
    """What is told of each claim is what was done."""
    done = {one.key[2] for one in effects}
    for item in outcome.items:
        event(item["state"])
        ours = item["claim"].removeprefix("shop/") in done
        assert not (ours and item["state"] in ("unchanged", "not_started", "pending"))
        if not met & UNCERTAIN:
            assert ours is bool(item.get("done"))
            mine = [one for one in effects if f"shop/{one.key[2]}" == item["claim"]]
            assert [kind_of(one) for one in mine] == item.get("done", [])
        if item["state"] == "changed":
            assert item["done"]
    assert done <= {item["claim"].removeprefix("shop/") for item in outcome.items}
    bad = [item for item in outcome.items if item["state"] in ("stale", "failed", "not_started")]
    assert bool(bad) <= bool(outcome.problem)


def kind_of(effect: Effect) -> str:
    if effect.key[0] == "persistentvolumes":
        return "volume"
    return "status" if effect.before["status"] != effect.after["status"] else "request"


@given(given=st.lists(pairs, min_size=1, max_size=2), allow=st.booleans(), acts=acts, fates=fates)
@examples(150)
def test_faults_and_rivals_shrink_nothing_and_leave_objects_that_agree(
    served: Cluster, given: list[Thing], allow: bool, acts: list[tuple[int, str, int]], fates: list[str]
) -> None:
    world = World(served, given)
    volumes = {f"c{number}": one["gib"][1] for number, one in enumerate(given)}
    world.disturb(acts, fates)
    outcome = world.run(allow)
    for effect in served.effects:
        judge(world, effect, allow, volumes)
    as_told(outcome, served.effects, world.met)
    if not acts:
        seen = [(one.key, kind_of(one)) for one in served.effects]
        assert len(set(seen)) == len(seen), "something was done twice"

    # The next run does the rest, and the one after it has nothing to do.
    world.calm()
    second = world.run(allow)
    for effect in served.effects:
        judge(world, effect, allow, volumes)
    as_told(second, served.effects, set())
    for item in second.items:
        assert item["state"] in ("changed", "unchanged", "refused", "pending"), item
        if item["state"] in ("changed", "unchanged") and item["driver"] == "nfs":
            volume, has, asks = world.sizes(item["claim"].removeprefix("shop/"))
            assert (volume, has) == (TARGET, TARGET)
            assert asks <= TARGET
    world.calm()
    third = world.run(allow)
    assert (served.effects, third.changed) == ([], False)


@given(given=st.lists(pairs, min_size=1, max_size=2), acts=acts, fates=fates, between=acts)
@examples(100)
def test_a_plan_is_never_stretched(
    served: Cluster,
    given: list[Thing],
    acts: list[tuple[int, str, int]],
    fates: list[str],
    between: list[tuple[int, str, int]],
) -> None:
    """A claim or volume that has changed since the plan was made is not begun with, whatever it has become."""
    world = World(served, given)
    volumes = {f"c{number}": one["gib"][1] for number, one in enumerate(given)}
    with tempfile.TemporaryDirectory() as folder:
        listing, file = f"{folder}/listing", Path(folder, "plan.json")
        _listing.result(_listing.read(client(served), Selection({}), plan_for="expand"), listing)
        asked = {"action": "expand", "plan": None, "listing": listing, "host": "h", "max_changes": None}
        plan = _planner.plan({**asked, "expand": {"selection": ALL, "size": f"{TARGET}Gi"}}).plan
        file.write_text(_plan.write(plan))
        for _at, what, number in between:
            world.act(what, number)
        world.disturb(acts, fates)
        outcome = world.run(plan=str(file))
    first = {step["item"]: step["precondition"] for step in plan["steps"]}
    for effect in served.effects:
        judge(world, effect, False, volumes)
        seen = first.pop(f"shop/{effect.key[2]}", None)
        if seen:
            planned = "volume_resource_version" if effect.key[0] == "persistentvolumes" else "resource_version"
            assert effect.before["metadata"]["resourceVersion"] == seen[planned]
    as_told(outcome, served.effects, world.met)
    assert {item["claim"] for item in outcome.items} == {step["item"] for step in plan["steps"]}


@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_through_faults_all_grow(seed: int, cluster: Cluster) -> None:
    """All workers together, in an order that nobody knows."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    one = {"gib": [1, 1], "request": 1, "storage_class": "gold", "source": "nfs", "policy": "Retain", "phase": "Bound"}
    world = World(cluster, [one] * 30)
    cluster.fate = lambda _method, _path: chance.choice(PASSING) if chance.random() < 0.2 else ""
    asked = arguments(pvc_expand.ARGUMENTS, selection=ALL, size=f"{TARGET}Gi")
    outcome = _expand_run.expand(client(cluster), asked, check_mode=False, diff=False)
    assert {item["state"] for item in outcome.items} == {"changed"}, outcome.problem
    assert {world.sizes(f"c{number}") for number in range(30)} == {(TARGET,) * 3}
    assert len(cluster.effects) == 90
