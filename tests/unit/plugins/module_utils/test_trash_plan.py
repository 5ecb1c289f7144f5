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
    defaults = {"retention": "14d", "names": [], "allow_now": False, "protected_namespaces": []}
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
    asked = {**about, "retention": "14d", "names": [], "allow_now": False, "protected_namespaces": []}
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
