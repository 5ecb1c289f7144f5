# SPDX-License-Identifier: GPL-3.0-or-later
"""How each volume ends when others are faster, answers get lost, or the API says no."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _reclaim_run
from ansible_collections.clusterkit.storage.plugins.module_utils._api import ApiError, Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts, Request, decide
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim_run import Conduct, Run
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.tests.merge_patch import merged

RELEASE = Request(release="reserved")


def pv(name: str = "a", **status: Any) -> dict[str, Any]:
    claim = {"namespace": "shop", "name": "data", "uid": "c1"}
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": "1"},
        "spec": {"csi": {"driver": "d"}, "persistentVolumeReclaimPolicy": "Retain", "claimRef": claim},
        "status": {"phase": "Released", **status},
    }


class Store:
    """An API with volumes; before each patch, a prepared event of the world may happen."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = {one["metadata"]["name"]: one for one in items}
        self.before: list[Callable[[str], object]] = []
        self.events: list[list[tuple[str, dict[str, Any]]] | ApiError] = []

    def get(self, path: str) -> dict[str, Any]:
        name = path.rsplit("/", 1)[1]
        if name not in self.items:
            raise ApiError("not found", 404)
        return self.items[name]

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        name = path.rsplit("/", 1)[1]
        if self.before:
            self.before.pop(0)(name)
        current = self.get(path)
        if current["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError("modified", 409)
        return self.change(name, body)

    def change(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = merged(self.items[name], body)
        made["metadata"]["resourceVersion"] = str(int(self.items[name]["metadata"]["resourceVersion"]) + 1)
        self.items[name] = made
        return made

    def list_all(self, path: str, convert: Any, _query: Any = None) -> Listing:
        mine = list(self.items.values()) if path.endswith("persistentvolumes") else []
        return Listing([convert(one) for one in mine], "9", 0.0)

    def each(self, function: Any, items: Any) -> list[Any]:
        return [function(one) for one in items]

    def watch(self, *_arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        time.sleep(0.01)
        if not self.events:
            return
        found = self.events.pop(0)
        if isinstance(found, ApiError):
            raise found
        yield from found


def carry_out(store: Store, request: Request = RELEASE, **conduct: Any) -> list[dict[str, Any]]:
    api: Any = store
    decisions = [decide(Volume.of(one), request, Facts()) for one in store.items.values()]
    return Run(api, request, [], Conduct(**conduct)).carry_out(decisions)


def test_another_ones_change_is_read_and_kept() -> None:
    store = Store(pv())
    store.before = [lambda name: store.change(name, {"metadata": {"labels": {"by": "other"}}})] * 3
    (item,) = carry_out(store)
    assert item["state"] == "changed"
    assert store.items["a"]["metadata"]["labels"] == {"by": "other"}
    assert "uid" not in store.items["a"]["spec"]["claimRef"]


def test_a_volume_that_is_bound_by_then_is_judged_anew_and_left_alone() -> None:
    store = Store(pv())
    store.before = [lambda name: store.change(name, {"status": {"phase": "Bound"}})]
    (item,) = carry_out(store)
    assert item["state"] == "refused"
    assert "is Bound" in item["reason"]
    assert store.items["a"]["spec"]["claimRef"]["uid"] == "c1"


def test_a_plan_is_not_stretched_to_a_volume_that_has_changed() -> None:
    store = Store(pv())
    store.before = [lambda name: store.change(name, {"metadata": {"labels": {"by": "other"}}})]
    (item,) = carry_out(store, strict=True)
    assert item["state"] == "stale"
    assert store.items["a"]["spec"]["claimRef"]["uid"] == "c1"


def lose_answer(store: Store, then: dict[str, Any]) -> Callable[[str], None]:
    """The change is made, its answer is lost, and the request is sent again."""

    def lose(name: str) -> None:
        store.change(name, then)
        raise ApiError("modified", 409, uncertain=True)

    return lose


RESERVED = {"spec": {"claimRef": {"uid": None}}}


@pytest.mark.parametrize(
    "then",
    [
        {**RESERVED, "status": {"phase": "Available"}},
        {"spec": {"claimRef": {"uid": "c2"}}, "status": {"phase": "Bound"}},
    ],
    ids=["available", "taken already"],
)
def test_a_change_whose_answer_was_lost_counts_as_ours(then: dict[str, Any]) -> None:
    store = Store(pv())
    store.before = [lose_answer(store, then)]
    (item,) = carry_out(store)
    assert item["state"] == "changed"


def test_what_is_gone_or_another_one_by_now_is_said() -> None:
    store = Store(pv("a"), pv("b"))

    def replace(name: str) -> None:
        store.items[name] = {**pv(name), "metadata": {"name": name, "uid": "new", "resourceVersion": "7"}}

    store.before = [store.items.pop, replace]
    assert [one["state"] for one in carry_out(store)] == ["gone", "stale"]


def fail(_name: str) -> None:
    raise ApiError("no", 422)


def test_after_an_error_the_others_are_done_or_not_begun() -> None:
    for on_error, states in (("continue", ["failed", "changed"]), ("stop", ["failed", "not_started"])):
        store = Store(pv("a"), pv("b"))
        store.before = [fail]
        assert [one["state"] for one in carry_out(store, on_error=on_error)] == states


def test_a_volume_that_others_change_for_ever_is_given_up() -> None:
    store = Store(pv())
    store.before = [lambda name: store.change(name, {"metadata": {"labels": {"by": "other"}}})] * 10
    (item,) = carry_out(store, seconds=-1.0)
    assert "others changed it all the time" in item["reason"]


def available(name: str = "a") -> dict[str, Any]:
    made: dict[str, Any] = merged(
        pv(name), {**RESERVED, "status": {"phase": "Available"}, "metadata": {"resourceVersion": "5"}}
    )
    return made


def waited(store: Store, phase: str = "Available", seconds: float = 5) -> dict[str, Any]:
    api: Any = store
    items = carry_out(store)
    Run(api, RELEASE, [], Conduct()).wait(items, "1", phase, seconds)
    return items[0]


def test_the_phase_that_follows_is_waited_for() -> None:
    store = Store(pv())
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "4"}})
    store.events = [[bookmark, ("MODIFIED", pv())], [("MODIFIED", available())]]
    item = waited(store)
    assert (item["state"], item["phase"]) == ("changed", "Available")


def test_a_watch_that_expired_is_begun_with_a_new_list() -> None:
    store = Store(pv())
    store.events = [ApiError("expired", 410)]
    item = carry_out(store)[0]
    store.change("a", {"status": {"phase": "Available"}})
    api: Any = store
    Run(api, RELEASE, [], Conduct()).wait([item], "1", "Available", 5)
    assert (item["state"], item["phase"]) == ("changed", "Available")


def test_what_does_not_come_or_goes_away_meanwhile_is_said() -> None:
    store = Store(pv())
    late = waited(store, seconds=0.05)
    assert late["state"] == "failed"
    assert "is Released and not Available after 0 s" in late["reason"]
    store = Store(pv())
    store.events = [[("DELETED", pv())]]
    assert waited(store)["state"] == "gone"
    store = Store(pv())
    store.events = [[("MODIFIED", available())]]
    assert waited(store, phase="Bound", seconds=0.05)["state"] == "failed", "reserved, but nobody came"


def test_an_outcome_counts_every_state() -> None:
    found = _reclaim_run.summary([{"state": "changed"}, {"state": "changed"}, {"state": "gone"}])
    assert (found["changed"], found["gone"], found["failed"]) == (2, 1, 0)
