# SPDX-License-Identifier: GPL-3.0-or-later
"""Of no volume it is ever said that it is gone while it is there; and none goes that was not to go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _cleanup_run, _plan
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.tests.api_server import PASSING, Cluster, Key, Thing, arguments, client
from ansible_collections.clusterkit.storage.tests.properties import examples
from ansible_collections.clusterkit.storage.tests.shares import HOST, SERVERS, SHARE
from hypothesis import given
from hypothesis import strategies as st

PROTECTION = "kubernetes.io/pv-protection"
CSI_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


def pv(cluster: Cluster, name: str, path: str = "", *, phase: str = "Released", **more: Any) -> Thing:
    metadata = {"finalizers": [PROTECTION], **more.pop("metadata", {})}
    spec = {
        "nfs": {"server": "192.0.2.10", "path": f"/nfs/k8s/{path or name}"},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": "shop", "name": f"claim-{name}", "uid": f"c-{name}"},
        **more,
    }
    return cluster.add("persistentvolumes", name, metadata=metadata, spec=spec, status={"phase": phase})


def protector(cluster: Cluster) -> Callable[[Key], None]:
    """What the controllers make of finalizers: those of a volume that is to go, or whose policy is Retain."""

    def act(key: Key) -> None:
        thing = cluster.things[key]
        if key[0] != "persistentvolumes":
            return
        left = list(thing["metadata"].get("finalizers") or [])
        if thing["spec"]["persistentVolumeReclaimPolicy"] == "Retain" and CSI_FINALIZER in left:
            left.remove(CSI_FINALIZER)
            cluster.change(key[0], key[2], {"metadata": {"finalizers": left}})
        elif thing["metadata"].get("deletionTimestamp") and left == [PROTECTION]:
            cluster.remove(key[0], key[2])

    return act


def plan(cluster: Cluster, folder: Path, *names: str, method: str = "quarantine") -> str:
    steps: list[dict[str, Any]] = []
    for name in names:
        thing = cluster.get("persistentvolumes", name)
        path = thing["spec"]["nfs"]["path"].replace("/nfs/k8s", SHARE)
        about = {"item": name, "before": "b", "after": "a", "reason": "r", "directory": path, "share": SHARE}
        metadata = thing["metadata"]
        if method == "quarantine":
            volume = {"name": name, "uid": metadata["uid"]}
            there = {"precondition": {"device": 1, "inode": 2}, "host": HOST, "scope": "directory", "volume": volume}
            steps.append({**about, **there, "module": "volume_dirs", "state": "quarantined"})
        wanted = {"uid": metadata["uid"], "resource_version": metadata["resourceVersion"]}
        step = {"module": "pv_cleanup", "state": "absent", "method": method, "server_host": HOST}
        steps.append({**about, **step, "precondition": wanted})
    made = _plan.make(
        "cleanup",
        cluster_uid=cluster.get("namespaces", "kube-system")["metadata"]["uid"],
        listed_at="2026-03-01T12:00:00Z",
        request={"storage_servers": SERVERS},
        steps=steps,
        refusals=[],
        unchanged=0,
    )
    file = folder / "plan.json"
    file.write_text(_plan.write(made))
    return str(file)


def run(cluster: Cluster, file: str, state: str = "absent", *, check_mode: bool = False, **more: Any) -> Outcome:
    given = {"state": state, "plan": file, "wait_timeout": 1, **more}
    asked = arguments(_cleanup_run.ARGUMENTS, **given)
    api = client(cluster, workers=1, dry_run=check_mode, retry=2.0)
    return _cleanup_run.clean_up(api, {**asked, "retry_timeout": 2}, check_mode=check_mode, diff=True)


def ends(outcome: Outcome) -> dict[str, tuple[str, str]]:
    return {item["name"]: (item["state"], item["object"]) for item in outcome.items}


def is_there(cluster: Cluster, name: str) -> bool:
    return ("persistentvolumes", "", name) in cluster.things


def test_a_volume_goes_once_its_policy_is_retain_and_nobody_holds_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.controller = protector(cluster)
    pv(cluster, "plain")
    csi = {"finalizers": [PROTECTION, CSI_FINALIZER], "annotations": {PROVISIONED_BY: "p"}}
    pv(cluster, "csi", persistentVolumeReclaimPolicy="Delete", metadata=csi)
    pv(cluster, "other")
    file = plan(cluster, tmp_path, "csi", "plain")
    outcome = run(cluster, file)
    assert ends(outcome) == {"csi": ("changed", "gone"), "plain": ("changed", "gone")}
    assert outcome.more["directories"] == {"quarantined": {HOST: ["00001", "00003"]}, "closed": {}}
    assert (outcome.problem, len(outcome.diffs), outcome.more["summary"]["changed"]) == ("", 2, 2)
    assert is_there(cluster, "other")
    assert [one.after["spec"]["persistentVolumeReclaimPolicy"] for one in cluster.effects] == ["Retain"]
    # Again: they are gone, and their directories may still have to be moved.
    outcome = run(cluster, file)
    assert ends(outcome) == {"csi": ("gone", "gone"), "plain": ("gone", "gone")}
    assert outcome.more["directories"]["quarantined"] == {HOST: ["00001", "00003"]}
    assert not outcome.changed


def test_the_objects_are_written_first(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a", storageClassName="gold")
    pv(cluster, "b")
    cluster.add("storageclasses", "gold", provisioner="p")
    file = plan(cluster, tmp_path, "a", "b")
    cluster.change("persistentvolumes", "b", {"metadata": {"labels": {"x": "y"}}})
    objects = tmp_path / "objects.jsonl"
    outcome = run(cluster, file, "intended", objects=str(objects))
    assert ends(outcome) == {"a": ("unchanged", "kept"), "b": ("stale", "kept")}
    assert outcome.more["directories"] == {"intended": {HOST: ["00001"]}}
    [line] = [json.loads(one) for one in objects.read_text().splitlines()]
    assert line["volume"]["metadata"]["name"] == "a"
    assert (line["claim"], line["class"]["provisioner"]) == (None, "p")
    assert (cluster.effects, cluster.deleted) == ([], [])
    with pytest.raises(ValueError, match="needs a file"):
        run(cluster, file, "intended")
    assert ends(run(cluster, file, only=[])) == {}
    with pytest.raises(ValueError, match='"nope" is no volume of the plan'):
        run(cluster, file, only=["nope"])


def test_a_volume_without_a_directory_goes_alone_and_what_it_was_is_kept(cluster: Cluster, tmp_path: Path) -> None:
    cluster.controller = protector(cluster)
    pv(cluster, "a", persistentVolumeReclaimPolicy="Delete")
    pv(cluster, "b")
    file, objects = plan(cluster, tmp_path, "a", "b", method="missing"), tmp_path / "objects.jsonl"
    cluster.change("persistentvolumes", "b", {"status": {"phase": "Bound"}})
    outcome = run(cluster, file, "intended", objects=str(objects))
    assert ends(outcome) == {"a": ("unchanged", "kept"), "b": ("refused", "kept")}
    assert (outcome.more["directories"], outcome.more["kept"]) == ({"intended": {}}, ["a"])
    [line] = [json.loads(one) for one in objects.read_text().splitlines()]
    assert line["volume"]["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    outcome = run(cluster, file, only=["a"])
    assert ends(outcome) == {"a": ("changed", "gone")}
    assert outcome.more["directories"] == {"quarantined": {}, "closed": {}}
    # Nobody deletes what may be there after all: the policy was Retain before it went.
    assert [one.after["spec"]["persistentVolumeReclaimPolicy"] for one in cluster.effects] == ["Retain"]
    assert is_there(cluster, "b")


def test_check_mode_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a", persistentVolumeReclaimPolicy="Delete")
    file = plan(cluster, tmp_path, "a")
    before = cluster.get("persistentvolumes", "a")
    assert ends(run(cluster, file, check_mode=True)) == {"a": ("changed", "gone")}
    assert cluster.get("persistentvolumes", "a") == before
    assert cluster.deleted == []


def replaced(cluster: Cluster, name: str) -> None:
    cluster.remove("persistentvolumes", "a")
    pv(cluster, name, "a")


CHANGES: list[tuple[str, Callable[[Cluster], object], tuple[str, str], str]] = [
    (
        "bound",
        lambda c: c.change("persistentvolumes", "a", {"status": {"phase": "Bound"}}),
        ("refused", "kept"),
        "is Bound",
    ),
    (
        "label",
        lambda c: c.change("persistentvolumes", "a", {"metadata": {"labels": {"x": "y"}}}),
        ("stale", "kept"),
        "changed",
    ),
    ("gone", lambda c: c.remove("persistentvolumes", "a"), ("gone", "gone"), "does not exist"),
    ("again", lambda c: replaced(c, "a"), ("stale", "unknown"), "another volume"),
    (
        "taken",
        lambda c: replaced(c, "b"),
        ("gone", "unknown"),
        "another volume has",
    ),
    ("twin", lambda c: pv(c, "b", "a"), ("refused", "kept"), "another volume has the directory"),
    ("below", lambda c: pv(c, "b", "a/deep"), ("refused", "kept"), "lies in its directory"),
    ("claim", lambda c: c.add("persistentvolumeclaims", "claim-a", "shop"), ("refused", "kept"), "exists"),
    (
        "protected",
        lambda c: c.add("namespaces", "shop", metadata={"labels": {"storage.clusterkit/protected": "true"}}),
        ("refused", "kept"),
        "protected namespace",
    ),
    (
        "recycler",
        lambda c: c.add("pods", "recycler-for-a", "default", spec={}, status={"phase": "Running"}),
        ("refused", "kept"),
        "emptying",
    ),
    (
        "leaving",
        lambda c: c.change("persistentvolumes", "a", {"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}}),
        ("stale", "unknown"),
        "is being deleted",
    ),
    (
        "held",
        lambda c: c.change("persistentvolumes", "a", {"metadata": {"finalizers": ["example.com/mine"]}}),
        ("refused", "kept"),
        "example.com/mine",
    ),
]


@pytest.mark.parametrize(("change", "end", "words"), [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES])
def test_what_has_changed_since_the_plan_stays(
    change: Callable[[Cluster], object], end: tuple[str, str], words: str, cluster: Cluster, tmp_path: Path
) -> None:
    pv(cluster, "a")
    file = plan(cluster, tmp_path, "a")
    change(cluster)
    outcome = run(cluster, file)
    assert ends(outcome) == {"a": end}
    assert words in outcome.items[0]["reason"]
    assert (cluster.deleted, cluster.effects) == ([], [])
    moved, withdrawn = outcome.more["directories"]["quarantined"], outcome.more["directories"]["closed"]
    assert bool(moved) is (end[1] == "gone")
    assert bool(withdrawn) is (end[1] == "kept")


def test_a_directory_in_that_of_another_volume_stays(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a", "team/a")
    file = plan(cluster, tmp_path, "a")
    pv(cluster, "team")
    assert ends(run(cluster, file)) == {"a": ("refused", "kept")}
    elsewhere = json.loads(Path(file).read_text())
    steps = [{**step, "server_host": "nfs2"} for step in elsewhere["steps"]]
    bare = {key: value for key, value in elsewhere.items() if key != "id"} | {"steps": steps}
    Path(file).write_text(_plan.write({"id": _plan.hash_of(bare), **bare}))
    assert "is not /srv/k8s/team/a on nfs2" in run(cluster, file).items[0]["reason"]


def test_a_finalizer_that_stays_keeps_the_volume(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a", metadata={"finalizers": [PROTECTION, CSI_FINALIZER]})
    outcome = run(cluster, plan(cluster, tmp_path, "a"))
    assert ends(outcome) == {"a": ("failed", "kept")}
    assert f"has the finalizer {CSI_FINALIZER} still" in outcome.items[0]["reason"]
    assert cluster.deleted == []
    assert outcome.more["directories"]["closed"] == {HOST: ["00001"]}


def test_a_volume_that_does_not_go_after_it_was_asked_to_is_neither_moved_nor_withdrawn(
    cluster: Cluster, tmp_path: Path
) -> None:
    pv(cluster, "a")
    outcome = run(cluster, plan(cluster, tmp_path, "a"))
    assert ends(outcome) == {"a": ("failed", "unknown")}
    assert "is there still after 1 s, held by kubernetes.io/pv-protection" in outcome.items[0]["reason"]
    assert outcome.more["directories"] == {"quarantined": {}, "closed": {}}
    assert outcome.changed is False or cluster.deleted


def test_a_policy_that_somebody_sets_back_stops_it(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a", persistentVolumeReclaimPolicy="Delete")
    file = plan(cluster, tmp_path, "a")

    def act(key: Key) -> None:
        if cluster.things[key]["spec"]["persistentVolumeReclaimPolicy"] == "Retain":
            cluster.change(key[0], key[2], {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})

    cluster.controller = lambda key: act(key) if key[0] == "persistentvolumes" else None
    outcome = run(cluster, file)
    assert ends(outcome) == {"a": ("refused", "kept")}
    assert "has set its policy to Delete" in outcome.items[0]["reason"]
    assert (outcome.changed, cluster.deleted) == (True, [])


def test_who_is_faster_with_the_last_change_is_looked_at_again(cluster: Cluster, tmp_path: Path) -> None:
    pv(cluster, "a")
    cluster.controller = protector(cluster)
    left = [lambda key: cluster.change(key[0], key[2], {"metadata": {"labels": {"x": "y"}}})]
    cluster.before_delete = lambda key: left.pop()(key) if left else None
    assert ends(run(cluster, plan(cluster, tmp_path, "a"))) == {"a": ("changed", "gone")}
    pv(cluster, "b")
    cluster.before_delete = lambda key: cluster.change(key[0], key[2], {"status": {"phase": "Bound"}})
    assert ends(run(cluster, plan(cluster, tmp_path, "b"))) == {"b": ("refused", "kept")}
    assert is_there(cluster, "b")


def test_after_an_error_the_others_are_done_or_not_begun(cluster: Cluster, tmp_path: Path) -> None:
    for on_error, second in (("continue", "changed"), ("stop", "not_started")):
        cluster.clear()
        cluster.controller = protector(cluster)
        pv(cluster, "a", persistentVolumeReclaimPolicy="Delete")
        pv(cluster, "b")
        cluster.patches_meet("forbidden")
        outcome = run(cluster, plan(cluster, tmp_path, "a", "b"), on_error=on_error)
        assert [item["state"] for item in outcome.items] == ["failed", second]
        assert "verb patch" in outcome.problem


# By its provisioner ------------------------------------------------------------------------------------


def dynamic(cluster: Cluster, name: str = "a") -> None:
    pv(cluster, name, storageClassName="managed", metadata={"annotations": {PROVISIONED_BY: "p"}})
    cluster.add("storageclasses", "managed", provisioner="p")
    template = {"spec": {"containers": [{"env": [{"name": "PROVISIONER_NAME", "value": "p"}]}]}}
    cluster.add("deployments", "p", "default", spec={"template": template}, status={"readyReplicas": 1})


def test_a_provisioner_removes_its_volume_or_the_policy_is_retain_again(cluster: Cluster, tmp_path: Path) -> None:
    dynamic(cluster)
    file = plan(cluster, tmp_path, "a", method="provisioner")
    outcome = run(cluster, file)
    assert ends(outcome) == {"a": ("failed", "kept")}
    assert "its policy is Retain again" in outcome.items[0]["reason"]
    assert cluster.get("persistentvolumes", "a")["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert "has changed since" in run(cluster, file).items[0]["reason"]

    def act(key: Key) -> None:
        if key[0] == "persistentvolumes" and cluster.things[key]["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            cluster.remove(key[0], key[2])

    cluster.controller = act
    outcome = run(cluster, plan(cluster, tmp_path, "a", method="provisioner"))
    assert ends(outcome) == {"a": ("changed", "gone")}
    assert outcome.more["directories"]["quarantined"] == {}


@pytest.mark.parametrize(("resource", "words"), [("deployments", "is stopped"), ("storageclasses", "is not there")])
def test_without_provisioner_or_class_nothing_is_asked_of_it(
    resource: str, words: str, cluster: Cluster, tmp_path: Path
) -> None:
    dynamic(cluster)
    file = plan(cluster, tmp_path, "a", method="provisioner")
    cluster.remove(
        resource, {"deployments": "p"}.get(resource, "managed"), {"deployments": "default"}.get(resource, "")
    )
    outcome = run(cluster, file)
    assert ends(outcome) == {"a": ("refused", "kept")}
    assert words in outcome.items[0]["reason"]
    assert cluster.effects == []


def test_a_volume_that_fails_meanwhile_tells_why(cluster: Cluster, tmp_path: Path) -> None:
    dynamic(cluster)

    def act(key: Key) -> None:
        thing = cluster.things[key]
        policy = thing["spec"].get("persistentVolumeReclaimPolicy")
        if policy == "Delete" and thing["status"]["phase"] == "Released":
            cluster.change(key[0], key[2], {"status": {"phase": "Failed", "message": "rm: no"}})

    cluster.controller = act
    outcome = run(cluster, plan(cluster, tmp_path, "a", method="provisioner"))
    assert "rm: no; its policy is Retain again" in outcome.items[0]["reason"]


# And back ----------------------------------------------------------------------------------------------


def undelete_plan(cluster: Cluster, folder: Path, *, claim: bool = False) -> str:
    cluster.add("namespaces", "shop")
    notes = {"storage.clusterkit/restored-from": "old-uid"}
    volume = {"kind": "PersistentVolume", "metadata": {"name": "a", "annotations": notes}, "spec": {}}
    volume["status"] = {"phase": "Available"}  # what the controller makes of it
    metadata = {"namespace": "shop", "name": "data"}
    wanted = {"kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {"volumeName": "a"}} if claim else None
    about = {"item": "a", "before": "b", "after": "a", "reason": "r"}
    place = {"module": "volume_dirs", "state": "restored", "host": HOST, "volume": {"name": "a", "uid": "old-uid"}}
    steps = [
        {**about, **place, "precondition": {"device": 1, "inode": 2}},
        {
            **about,
            "module": "pv_cleanup",
            "state": "present",
            "objects": {"volume": volume, "claim": wanted},
            "precondition": {"uid": "old-uid"},
        },
    ]
    made = _plan.make(
        "undelete",
        cluster_uid=cluster.get("namespaces", "kube-system")["metadata"]["uid"],
        listed_at="2026-03-01T12:00:00Z",
        request={},
        steps=steps,
        refusals=[],
        unchanged=0,
    )
    file = folder / "plan.json"
    file.write_text(_plan.write(made))
    return str(file)


@pytest.mark.parametrize("fate", ["", *PASSING])
def test_a_volume_is_made_again_once(fate: str, cluster: Cluster, tmp_path: Path) -> None:
    file = undelete_plan(cluster, tmp_path, claim=True)
    fates = [fate]
    cluster.fate = lambda method, _path: fates.pop() if fates and method == "POST" else ""
    outcome = run(cluster, file, "present")
    assert ends(outcome) == {"a": ("changed", "made")}
    assert outcome.more["directories"] == {"closed": {HOST: ["00001"]}}
    assert cluster.get("persistentvolumeclaims", "data", "shop")["spec"] == {"volumeName": "a"}
    assert ends(run(cluster, file, "present")) == {"a": ("unchanged", "made")}


def test_what_is_there_by_now_is_not_touched(cluster: Cluster, tmp_path: Path) -> None:
    file = undelete_plan(cluster, tmp_path, claim=True)
    pv(cluster, "a")
    outcome = run(cluster, file, "present")
    assert ends(outcome) == {"a": ("refused", "kept")}
    assert outcome.more["directories"] == {"closed": {}}
    cluster.remove("persistentvolumes", "a")
    cluster.add("persistentvolumeclaims", "data", "shop", spec={"volumeName": "other"})
    outcome = run(cluster, file, "present")
    assert ends(outcome) == {"a": ("failed", "made")}
    assert "its claim is not" in outcome.items[0]["reason"]
    assert outcome.more["directories"] == {"closed": {}}
    assert ends(run(cluster, file, "present", check_mode=True)) == {"a": ("failed", "made")}


def test_a_volume_that_does_not_get_ready_is_said(cluster: Cluster, tmp_path: Path) -> None:
    file = undelete_plan(cluster, tmp_path)
    cluster.controller = lambda key: (
        cluster.change(key[0], key[2], {"status": {"phase": "Pending"}})
        if key[0] == "persistentvolumes" and cluster.things[key]["status"]["phase"] == "Available"
        else None
    )
    outcome = run(cluster, file, "present")
    assert ends(outcome) == {"a": ("failed", "made")}
    assert "not Available after 1 s" in outcome.items[0]["reason"]


# Whatever the network does -----------------------------------------------------------------------------


@given(
    fates=st.lists(st.sampled_from(["", *PASSING, "conflict", "forbidden"]), max_size=12),
    policy=st.sampled_from(["Retain", "Delete"]),
    finalizers=st.sampled_from([[], [PROTECTION], [PROTECTION, CSI_FINALIZER]]),
    stuck=st.booleans(),
)
@examples(150)
def test_no_directory_moves_whose_volume_is_there(
    fates: list[str], policy: str, finalizers: list[str], stuck: bool, served: Cluster, folder: Path
) -> None:
    served.clear()
    if not stuck:
        served.controller = protector(served)
    for name in ("a", "b"):
        pv(served, name, persistentVolumeReclaimPolicy=policy, metadata={"finalizers": finalizers})
    file = plan(served, folder, "a", "b")
    served.disturb(["", "", *fates], lambda _patch: None)
    try:
        outcome = run(served, file, wait_timeout=0)
    except ApiError:  # reading failed before anything was done
        assert served.deleted == []
        return
    moved = {item["name"] for item in outcome.items if item["object"] == "gone"}
    kept = {item["name"] for item in outcome.items if item["object"] == "kept"}
    for name in ("a", "b"):
        if name in moved:
            assert not is_there(served, name)
        if name in kept:
            assert is_there(served, name)
            assert not served.get("persistentvolumes", name)["metadata"].get("deletionTimestamp")
    for effect in served.effects:
        assert effect.after["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")
