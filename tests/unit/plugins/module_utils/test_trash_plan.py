# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes back is what was put away, for whom it was; and what goes for good has had its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _planner, _trash_plan
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import load
from ansible_collections.clusterkit.storage.plugins.modules import storage_plan
from ansible_collections.clusterkit.storage.tests.shares import (
    DAY,
    HOST,
    OTHER_CLUSTER,
    SERVERS,
    SHARE,
    directories,
    intent,
    listing,
    quarantined,
    volume,
    write_directories,
    write_listing,
)
from hypothesis import given
from hypothesis import strategies as st

RESTORED_FROM = "storage.clusterkit/restored-from"


def undelete(trash: list[Any], own: _listing.Listing, *listed: str, **more: Any) -> dict[str, Any]:
    found = directories(*listed)
    found.quarantined = [one for one in trash if one["kind"] == "Quarantined"]
    found.intents = [one for one in trash if one["kind"] == "Intent"]
    given = {"names": ["*"], "to_claim": None, "make_claim": False, "storage_servers": SERVERS, **more}
    return _trash_plan.undelete([found], own, given)


def purge(trash: list[Any], own: _listing.Listing | None = None, **more: Any) -> dict[str, Any]:
    found = directories()
    found.quarantined = trash
    defaults = {"retention": "14d", "names": [], "allow_now": False, "max_bytes": None, "protected_namespaces": []}
    return _trash_plan.purge([found], own or listing(), {**defaults, "storage_servers": SERVERS, **more})


def steps(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["item"], one["module"], one["state"]) for one in plan["steps"]]


def why(plan: dict[str, Any]) -> str:
    return "; ".join(f"{one['item']}: {one['reason']}" for one in plan["refusals"])


def made(plan: dict[str, Any]) -> dict[str, Any]:
    [objects] = [one["objects"] for one in plan["steps"] if one["module"] == "pv_cleanup"]
    return dict(objects)


BACK = [("v", "volume_dirs", "restored"), ("v", "pv_cleanup", "present")]


def test_a_volume_comes_back_for_its_old_claim_with_policy_retain() -> None:
    old = volume("v", policy="Delete")
    old.annotations = {"pv.kubernetes.io/bound-by-controller": "yes", "mine": "x"}
    plan = undelete([quarantined(old)], listing())
    assert steps(plan) == BACK
    objects = made(plan)
    assert objects["claim"] is None
    assert objects["volume"]["metadata"]["annotations"] == {
        "mine": "x", "storage.clusterkit/previous-policy": "Delete", RESTORED_FROM: "uid-v",
    }  # fmt: skip
    spec = objects["volume"]["spec"]
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "shop", "name": "claim-v"}
    assert spec["claimRef"] == reference
    assert "uid" not in objects["volume"]["metadata"]
    assert plan["steps"][0]["precondition"].keys() == {"device", "inode"}


def test_a_claim_is_made_again_if_that_is_wanted_and_it_is_not_there() -> None:
    plan = undelete([quarantined(volume("v"))], listing(), make_claim=True, to_claim="other/data")
    claim = made(plan)["claim"]
    assert claim["metadata"] == {"namespace": "other", "name": "data"}
    assert claim["spec"]["volumeName"] == "v"
    assert claim["spec"]["resources"] == {"requests": {"storage": "1Gi"}}
    assert "PREVIOUS" not in str(made(plan)["volume"])
    own = listing()
    own.claims = [{"namespace": "other", "name": "data", "volume": ""}]
    assert made(undelete([quarantined(volume("v"))], own, make_claim=True, to_claim="other/data"))["claim"] is None


def test_a_claim_that_was_made_again_is_not_robbed() -> None:
    own = listing()
    own.claims = [{"namespace": "shop", "name": "claim-v", "volume": "pvc-new"}]
    plan = undelete([quarantined(volume("v"))], own)
    assert steps(plan) == []
    assert "was made again and has the volume pvc-new by now" in why(plan)
    assert "undelete_to_claim" in why(plan)
    assert steps(undelete([quarantined(volume("v"))], own, to_claim="shop/another")) == BACK


@pytest.mark.parametrize(
    ("record", "own", "listed", "words"),
    [
        (quarantined(volume("v")), listing(volume("v", uid="new")), (), "PersistentVolume v is there again"),
        (quarantined(volume("v")), listing(volume("v")), (), "only its content is in quarantine"),
        (quarantined(volume("v")), listing(volume("w", "v")), (), "PersistentVolume w names the same server and path"),
        (quarantined(volume("v")), listing(), ("v",), "is there again, and in the way"),
        (quarantined(volume("v"), state="purging"), listing(), (), "cannot be brought back whole"),
        (quarantined(volume("v"), inode=None), listing(), (), "there is no directory in"),
        (quarantined(volume("v"), objects=None), listing(), (), "holds no objects"),
        (quarantined(volume("v", claim=None)), listing(), (), "say undelete_to_claim"),
    ],
)
def test_what_cannot_come_back_is_named(record: Any, own: Any, listed: tuple[str, ...], words: str) -> None:
    plan = undelete([record], own, *listed)
    assert steps(plan) == []
    assert words in why(plan)


def test_what_is_meant() -> None:
    trash = [
        quarantined(volume("v")),
        quarantined(None, "nobody"),
        quarantined(volume("theirs"), cluster_uid=OTHER_CLUSTER),
    ]
    assert steps(undelete(trash, listing(), names=["v"])) == BACK
    path = f"{SHARE}/nobody"
    assert steps(undelete(trash, listing(), names=[path])) == [(path, "volume_dirs", "restored")]
    assert steps(undelete(trash, listing(), names=["theirs"])) == []
    with pytest.raises(ValueError, match="nothing means nothing"):
        undelete(trash, listing(), names=[])
    for wrong in ("data", "a/b/c", "/x"):
        with pytest.raises(ValueError, match="write NAMESPACE/NAME"):
            undelete(trash, listing(), to_claim=wrong)
    with pytest.raises(ValueError, match="only one can be for shop/x"):
        undelete([*trash, quarantined(volume("w"))], listing(), to_claim="shop/x")
    twice = [quarantined(volume("v")), quarantined(volume("v"), age=DAY)]
    assert "more than once; name the entry" in why(undelete(twice, listing()))
    assert steps(undelete(twice, listing(), names=[twice[0]["entry"]])) == BACK


def test_what_an_earlier_run_brought_back_gets_its_objects() -> None:
    back = intent(volume("v"), restored=True)
    plan = undelete([back, intent(volume("open"))], listing(), "v")
    assert steps(plan) == [("v", "volume_dirs", "closed"), ("v", "pv_cleanup", "present")]
    again = volume("v", uid="new", annotations={RESTORED_FROM: "uid-v"})
    assert steps(undelete([back], listing(again), "v")) == steps(plan)


def test_what_had_its_time_is_removed_for_good_the_oldest_first() -> None:
    trash = [
        quarantined(volume("young"), age=13 * DAY),
        quarantined(volume("old"), age=15 * DAY),
        quarantined(volume("very-old"), age=50 * DAY),
        quarantined(None, "nobody", age=100 * DAY),
        quarantined(volume("future"), age=-DAY),
        quarantined(volume("theirs"), age=100 * DAY, cluster_uid=OTHER_CLUSTER),
    ]
    plan = purge(trash)
    assert [one[0] for one in steps(plan)] == [f"{SHARE}/nobody", "very-old", "old"]
    assert plan["unchanged"] == 2
    assert [one[0] for one in steps(purge(trash, retention="1d"))] == [f"{SHARE}/nobody", "very-old", "old", "young"]
    assert steps(purge(trash, names=["young"])) == []
    assert [one[0] for one in steps(purge(trash, names=["young"], allow_now=True))] == ["young"]
    with pytest.raises(ValueError, match="name what is meant"):
        purge(trash, allow_now=True)


@pytest.mark.parametrize(
    ("record", "own", "more", "words"),
    [
        (quarantined(volume("v"), state="restoring"), listing(), {}, "is on its way back"),
        (quarantined(volume("v"), inode=None), listing(), {}, "the next run looks after it"),
        (quarantined(volume("v"), objects=None), listing(), {}, "make it with objects: true"),
        (quarantined(volume("v")), listing(protected=["shop"]), {}, 'protected namespace "shop"'),
        (quarantined(volume("v")), listing(), {"protected_namespaces": ["shop"]}, 'protected namespace "shop"'),
        (quarantined(volume("v")), listing(volume("v")), {}, "its PersistentVolume is there"),
        (
            quarantined(volume("v")),
            listing(volume("v", uid="n", annotations={RESTORED_FROM: "uid-v"})),
            {},
            "its PersistentVolume is there",
        ),
    ],
)
def test_what_may_be_needed_is_kept(record: Any, own: Any, more: dict[str, Any], words: str) -> None:
    plan = purge([record], own, **more)
    assert steps(plan) == []
    assert words in why(plan)


def sized(name: str, size: int, *, days_old: int, **more: Any) -> dict[str, Any]:
    return quarantined(volume(name), age=days_old * DAY, **{"size": size, "files": 1, "size_complete": True, **more})


def going(plan: dict[str, Any]) -> list[str]:
    return [one["item"] for one in plan["steps"]]


def test_no_more_is_freed_than_is_said_and_nothing_large_is_passed_over() -> None:
    ages = {"c": (3, 20), "a": (4, 40), "b": (5, 30), "d": (1, 15)}
    trash = [sized(name, size, days_old=age) for name, (size, age) in ages.items()]
    plan = purge(trash, max_bytes="9")
    assert (going(plan), plan["bytes"]) == (["a", "b"], 9)
    assert why(plan) == "c: takes 3 B, after 9 B that go before it more than max_bytes, which is 9"
    assert plan["notes"] == [{"item": "d", "reason": "waits for a later run, as c does, which is older"}]
    assert "4 B" in plan["steps"][0]["before"]
    assert going(purge(trash, max_bytes="8")) == ["a"]
    assert going(purge(trash, max_bytes="3")) == [], "d alone would fit in, but a has waited for longer"
    assert going(purge(trash, max_bytes="0")) == []
    assert going(purge(trash, max_bytes="13")) == ["a", "b", "c", "d"] == going(purge(trash))
    assert going(purge(trash, max_bytes="1", names=["d"])) == ["d"]
    with pytest.raises(ValueError, match="many"):
        purge(trash, max_bytes="many")


def test_what_was_not_measured_waits_and_what_may_not_go_takes_no_room() -> None:
    for unknown in (sized("b", 1, days_old=30, size_complete=False), quarantined(volume("b"), age=30 * DAY)):
        trash = [sized("a", 4, days_old=40), unknown, sized("c", 1, days_old=20)]
        plan = purge(trash, max_bytes="100")
        assert going(plan) == ["a"]
        assert "b: max_bytes is 100, and how large it is was not measured to its end" in why(plan)
        assert going(purge(trash)) == ["a", "b", "c"]
    kept, young = sized("kept", 50, days_old=40, state="restoring"), sized("young", 50, days_old=1)
    assert going(purge([kept, sized("a", 1, days_old=30), young], max_bytes="1")) == ["a"]


def test_what_was_begun_is_finished_first_and_counts() -> None:
    trash = [sized("a", 4, days_old=40), sized("begun", 5, days_old=20, state="purging"), sized("b", 2, days_old=15)]
    assert going(purge(trash, max_bytes="9")) == ["a", "begun"]
    plan = purge(trash, max_bytes="8")
    assert (going(plan), plan["bytes"]) == (["begun"], 5)
    # Of what it has not named the server is not asked, but it goes on with it all the same.
    assert going(purge(trash, max_bytes="8", names=["a"])) == []


@given(
    sizes=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 40), st.booleans()), max_size=8),
    limit=st.integers(0, 120),
)
def test_within_any_limit_the_oldest_go_and_no_more(sizes: list[tuple[int, int, bool]], limit: int) -> None:
    trash = [
        sized(f"v{number}", size, days_old=age, size_complete=known) for number, (size, age, known) in enumerate(sizes)
    ]
    free, limited = purge(trash), purge(trash, max_bytes=str(limit))
    whole, part = going(free), going(limited)
    assert whole[: len(part)] == part
    by_name = {one["volume"]["name"]: one for one in trash}
    assert sum(by_name[name]["size"] for name in part) == limited["bytes"] <= limit
    assert all(by_name[name]["size_complete"] for name in part)
    for name in whole[len(part) : len(part) + 1]:
        assert not by_name[name]["size_complete"] or limited["bytes"] + by_name[name]["size"] > limit
    told = [one["item"] for one in [*limited["refusals"], *limited["notes"]]]
    assert sorted([*part, *told]) == sorted(whole)


def test_both_from_files(tmp_path: Path) -> None:
    found = directories()
    found.quarantined = [quarantined(volume("v"))]
    files = [{"host": HOST, "path": write_directories(found, tmp_path / "dirs")}]
    whole = dict.fromkeys(storage_plan.ARGUMENTS) | {"host": "api"}
    whole |= {"listing": write_listing(listing(), tmp_path / "volumes")}
    about = {"directories": files, "storage_servers": SERVERS}
    asked = {**about, "names": ["v"], "to_claim": None, "make_claim": False}
    plan = _planner.plan({**whole, "action": "undelete", "undelete": asked}).plan
    assert steps(plan) == BACK
    asked = {**about, "retention": "14d", "names": [], "allow_now": False, "max_bytes": None}
    asked["protected_namespaces"] = []
    plan = _planner.plan({**whole, "action": "purge", "purge": asked}).plan
    assert steps(plan) == [("v", "volume_dirs", "purged")]
    with pytest.raises(ValueError, match="1 directories would be changed, but max_changes is 0"):
        _planner.plan({**whole, "action": "purge", "purge": asked, "max_changes": "0"})


def test_a_file_of_directories_that_is_none_or_was_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dirs"
    write_directories(directories("a", "b"), file)
    lines = file.read_text().splitlines()
    assert len(load(HOST, str(file)).directories) == 2
    for text, words in (
        ("", "is empty"),
        ("\n".join(lines[:-1]), "was cut off: it holds 1 records; expected 2"),
        ("\n".join(lines[1:]), "line 1"),
        ("\n".join([*lines, "nonsense"]), "line 4"),
        ('{"kind": "other", "records": 0}', "no header of kind DirectorySet"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            load(HOST, str(file))
