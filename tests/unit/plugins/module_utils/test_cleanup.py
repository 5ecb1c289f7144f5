# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned to go: each rule that protects data, and that nothing else is ever planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _cleanup, _plan, _planner, _uses, _volume_dirs
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.plugins.modules import storage_plan
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from ansible_collections.clusterkit.storage.tests.shares import (
    ASKED,
    DAY,
    HOST,
    OTHER_CLUSTER,
    SERVERS,
    SHARE,
    directories,
    directory,
    dynamic,
    intent,
    listing,
    quarantined,
    volume,
    write_directories,
    write_listing,
)
from hypothesis import given
from hypothesis import strategies as st

CSI_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
CARRIER = {
    "who": "Deployment a/p",
    "server": "tank",
    "path": "/nfs/k8s",
    "claim": None,
    "provisioner": "fuseim.pri/ifs",
}


def asked(**more: Any) -> dict[str, Any]:
    defaults = {name: one.get("default") for name, one in _cleanup.ARGUMENTS.items()}
    return {**defaults, "storage_servers": SERVERS, **more}


def planned(found: DirectorySet, own: Listing, **more: Any) -> dict[str, Any]:
    others, mounts = more.pop("others", []), more.pop("mounts", [])
    return _cleanup.plan([found], own, asked(**more), others=others, mounts=mounts)[0]


def of(plan: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for step in plan["steps"]:
        found.setdefault(step["item"].removeprefix(f"{SHARE}/"), []).append(f"{step['module']} {step['state']}")
    return found


def why(plan: dict[str, Any]) -> str:
    return "; ".join(f"{one['item']}: {one['reason']}" for one in [*plan["refusals"], *plan["notes"]])


BOTH = ["volume_dirs quarantined", "pv_cleanup absent"]


def test_a_released_volume_goes_with_its_directory_and_nothing_else() -> None:
    own = listing(volume("old"), volume("used", phase="Bound"), volume("new", released_at="2026-02-28T12:00:00Z"))
    plan = planned(directories("old", "used", "new", "nobody", "archived-x"), own)
    assert of(plan) == {"old": BOTH}
    assert (plan["changes"], plan["classes"]["orphan"], plan["refusals"]) == (1, 1, [])
    assert {f"{SHARE}/used", f"{SHARE}/new", SHARE} == set(plan["keep"])
    step = plan["steps"][0]
    assert (step["host"], step["share"], step["scope"]) == (HOST, SHARE, "directory")
    assert step["volume"] == {"name": "old", "uid": "uid-old"}
    assert plan["steps"][1]["precondition"] == {"uid": "uid-old", "resource_version": "7"}
    # The server takes it: the intent, what is moved, and the withdrawal are one step.
    assert not list(_volume_dirs.step_problems("s", step, "quarantined", [SHARE], more_objects=True))


@pytest.mark.parametrize(
    ("changes", "facts", "words"),
    [
        ({}, {"protected": ["shop"]}, 'protected namespace "shop"'),
        ({}, {"claims": {("shop", "claim-v"): "claim-uid-v"}}, "still exists"),
        ({}, {"claims": {("shop", "claim-v"): "another"}}, "exists again, with another uid"),
        ({"policy": "Recycle"}, {}, "may be emptying it"),
        ({"policy": "Delete", "provisioner": "p", "provisioner_state": "running"}, {}, "may be deleting the data"),
        ({"policy": "Delete", "provisioner": "p", "provisioner_state": "unknown"}, {}, "may be deleting the data"),
        ({"finalizers": ("example.com/backup",)}, {}, "has the finalizer example.com/backup"),
        ({"released_at": None}, {}, "nobody knows since when"),
    ],
)
def test_a_volume_that_may_not_go_is_named(changes: dict[str, Any], facts: dict[str, Any], words: str) -> None:
    plan = planned(directories("v"), listing(volume("v", **changes), **facts))
    assert of(plan) == {}
    assert words in why(plan)


def test_a_volume_that_is_being_emptied_or_mounted_upon_stays() -> None:
    own = listing(volume("v"))
    own.facts = Facts(frozenset(), {}, frozenset({"v"}))
    assert "a recycler pod is emptying it" in why(planned(directories("v"), own))
    found = directories(directory("v", mount_point=True))
    assert "is a mount point" in why(planned(found, listing(volume("v"))))
    assert 'protected namespace "shop"' in why(
        planned(directories("v"), listing(volume("v")), protected_namespaces=["shop"])
    )


def test_policy_delete_of_a_stopped_provisioner_and_the_finalizer_of_csi_are_no_obstacle() -> None:
    one = dynamic("v", policy="Delete", provisioner_state="stopped", finalizers=(CSI_FINALIZER,))
    assert of(planned(directories("v"), listing(one))) == {"v": BOTH}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"names": ["a*"]}, {"a"}),
        ({"namespaces": ["other"]}, {"b"}),
        ({"storage_classes": ["gold"]}, {"c"}),
        ({"exclude": ["a", "*/b", f"{SHARE}/c"]}, set()),
        ({"exclude_namespaces": ["sh*"]}, {"b"}),
        ({"exclude_storage_classes": ["gold"]}, {"a", "b"}),
        ({"released_for": "11d"}, set()),
        ({"exclude": ["b"]}, {"a", "c"}),
    ],
)
def test_what_is_meant(more: dict[str, Any], expected: set[str]) -> None:
    own = listing(volume("a"), volume("b", claim=("other", "x", "u")), volume("c", storage_class="gold"))
    if "*/b" in more.get("exclude", []):
        more = {"exclude": [*more["exclude"], "b"]}
    assert set(of(planned(directories("a", "b", "c"), own, **more))) == expected


def test_orphans_and_archives_only_by_their_own_word_and_only_old_ones() -> None:
    found = directories("x", "archived-y", directory("young", age=2 * DAY), directory("archived-z", age=3600))
    assert of(planned(found, listing())) == {}
    alone = ["volume_dirs quarantined"]
    plan = planned(found, listing(), orphans=True)
    assert of(plan) == {"x": alone}
    assert "young: orphan, but changed 2.0 days ago only" in why(plan)
    assert of(planned(found, listing(), archives=True)) == {"archived-y": alone}
    assert of(planned(found, listing(), orphans=True, archives=True, names=["x"])) == {"x": alone}
    assert of(planned(found, listing(), orphans=True, archives=True, namespaces=["*"])) == {}
    step = planned(found, listing(), orphans=True)["steps"][0]
    assert step.get("volume") is None
    mounted = directories(directory("archived-m", mount_point=True))
    assert "is a mount point" in why(planned(mounted, listing(), archives=True))


@pytest.mark.parametrize("complete", [True, False])
def test_another_cluster_must_be_asked_before_anything_is_an_orphan(complete: bool) -> None:
    found = directories("x", "theirs", clusters=[listing().cluster_uid, OTHER_CLUSTER])
    other = listing(volume("theirs"), cluster=OTHER_CLUSTER, complete=complete)
    plan = planned(found, listing(), others=[other], orphans=True)
    assert of(plan) == ({"x": ["volume_dirs quarantined"]} if complete else {})
    assert of(planned(found, listing(), orphans=True)) == {}
    assert f"{SHARE}/theirs" in plan["keep"]


def test_a_listing_that_is_not_whole_makes_no_plan() -> None:
    with pytest.raises(ValueError, match="not of all volumes"):
        planned(directories("v"), listing(volume("v"), complete=False))
    bare = listing(volume("v"))
    bare.uses = None
    with pytest.raises(ValueError, match="plan_for: cleanup"):
        planned(directories("v"), bare)


def test_an_export_of_its_own_keeps_its_directory() -> None:
    whole = volume("whole")
    whole.path = "/nfs/k8s"
    plan = planned(directories("data"), listing(whole))
    assert of(plan) == {"whole": BOTH}
    assert plan["steps"][0]["scope"] == "content"
    assert plan["keep"] == []


def test_how_much_may_go(tmp_path: Path) -> None:
    found, own = directories("a", "b"), listing(volume("a"), volume("b"), volume("c", phase="Bound"))
    sized = directories(*(directory(name, size=2**30, files=1, size_complete=True) for name in "ab"))
    given = asked(max_bytes="2Gi")
    plan, _classes, made = _cleanup.plan([found], own, given, mounts=[], sizes=[sized])
    assert (made.bytes, plan["bytes"]) == (2 * 2**30, 2 * 2**30)
    assert "1.0 GiB" in plan["steps"][0]["before"]
    with pytest.raises(ValueError, match=r"2\.0 GiB would be moved, but max_bytes is 1Gi"):
        _cleanup.plan([found], own, asked(max_bytes="1Gi"), mounts=[], sizes=[sized])
    with pytest.raises(ValueError, match="not measured to its end"):
        _cleanup.plan([found], own, given, mounts=[])
    files = {
        "directories": [{"host": HOST, "path": write_directories(found, tmp_path / "dirs")}],
        "storage_servers": SERVERS,
    }
    whole = dict.fromkeys(storage_plan.ARGUMENTS) | {"action": "cleanup", "host": "api"}
    request = whole | {"listing": write_listing(own, tmp_path / "volumes"), "cleanup": asked(**files)}
    with pytest.raises(ValueError, match="2 volumes and directories would be changed, but max_changes is 10%"):
        _planner.plan({**request, "max_changes": "10%"})
    done = _planner.plan({**request, "max_changes": "2"})
    assert done.measure == {HOST: [f"{SHARE}/a", f"{SHARE}/b"]}
    assert [one["class"] for one in done.report] == ["released", "released", "missing"]
    assert _plan.ids(done.plan) == {HOST: {"quarantined": ["00001", "00003"]}}
    assert _planner.parents(request) == {}
    with pytest.raises(ValueError, match="directories is empty"):
        _planner.plan({**request, "cleanup": asked()})
    with pytest.raises(ValueError, match="cleanup: is needed"):
        _planner.plan({**request, "cleanup": None})


def test_other_clusters_sizes_and_what_a_provisioner_removes_reach_the_plan(tmp_path: Path) -> None:
    found = directories("a", "theirs", "x", clusters=[listing().cluster_uid, OTHER_CLUSTER])
    own = listing(dynamic("a", provisioner_state="running"), uses=[CARRIER])
    own.classes = {"managed": {"provisioner": "fuseim.pri/ifs"}}
    other = listing(volume("theirs"), cluster=OTHER_CLUSTER)
    other.volumes[0].path = "/nfs/k8s/team/theirs"
    sized = directories(*(directory(name, size=2**30, files=1, size_complete=True) for name in "ax"))
    (tmp_path / "mounts").write_text("")
    files = {
        "directories": [{"host": HOST, "path": write_directories(found, tmp_path / "dirs")}],
        "sizes": [{"host": HOST, "path": write_directories(sized, tmp_path / "sizes")}],
        "other_listings": [write_listing(other, tmp_path / "others")],
        "mounts": str(tmp_path / "mounts"),
    }
    whole = dict.fromkeys(storage_plan.ARGUMENTS) | {"action": "cleanup", "host": "api"}
    whole |= {"listing": write_listing(own, tmp_path / "volumes")}
    request = whole | {"cleanup": asked(method="provisioner", orphans=True, max_bytes="3Gi", **files)}
    assert _planner.parents(request) == {HOST: [f"{SHARE}/team"]}
    other.volumes[0].path = "/nfs/k8s/theirs"
    write_listing(other, tmp_path / "others")
    made = _planner.plan(request)
    assert of(made.plan) == {"a": ["pv_cleanup absent"], "x": ["volume_dirs quarantined"]}
    assert f"{SHARE}/theirs" in made.plan["keep"]
    assert (made.plan["bytes"], made.measure) == (2 * 2**30, {HOST: [f"{SHARE}/a", f"{SHARE}/x"]})
    assert [step["host"] for step in made.plan["steps"]] == [HOST, "api"]


def test_a_host_that_did_not_tell_its_mounts_stops_the_search_for_orphans(tmp_path: Path) -> None:
    found, own = directories("x", "y"), listing()
    mounts = tmp_path / "mounts"
    files = {"directories": [{"host": HOST, "path": write_directories(found, tmp_path / "dirs")}]}
    whole = dict.fromkeys(storage_plan.ARGUMENTS) | {"action": "cleanup", "host": "api"}
    request = whole | {"listing": write_listing(own, tmp_path / "volumes")}
    request |= {"cleanup": asked(orphans=True, mounts=str(mounts), **files)}
    lines = {"name": "node1", "problem": "", "sources": ["192.0.2.10:/nfs/k8s/x", "tmpfs"]}
    mounts.write_text(json.dumps(lines) + "\n")
    plan = _planner.plan(request).plan
    assert of(plan) == {"y": ["volume_dirs quarantined"]}
    mounts.write_text(json.dumps({**lines, "problem": "unreachable"}) + "\n")
    with pytest.raises(ValueError, match="node1 did not tell what it mounts"):
        _planner.plan(request)
    mounts.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is no host"):
        _planner.plan(request)


# Without a directory -----------------------------------------------------------------------------------

ALONE = ["pv_cleanup absent"]


def test_a_volume_without_a_directory_goes_only_by_its_own_word_and_no_directory_with_it() -> None:
    own = listing(volume("lost"), volume("used", phase="Bound"), volume("off", phase="Bound"), volume("gone", "t/gone"))
    found = directories("used", "nobody")
    plan = planned(found, own)
    assert of(plan) == {}
    assert "lost: is missing: /srv/k8s/lost on nfs1 is not there; nothing is done" in why(plan)
    plan = planned(found, own, missing=True)
    assert of(plan) == {"lost": ALONE, "gone": ALONE}
    assert "off: is missing" in why(plan)
    step = plan["steps"][1]
    assert (step["method"], step["directory"], step["after"]) == ("missing", f"{SHARE}/lost", NOTHING)
    assert step["precondition"] == {"uid": "uid-lost", "resource_version": "7"}
    assert (plan["changes"], plan["bytes"]) == (2, 0)
    assert f"{SHARE}/lost" in plan["keep"], "whoever puts it back there meanwhile keeps it"
    assert of(planned(found, own, missing=True, method="provisioner")) == of(plan)
    assert of(planned(found, own, missing=True, max_bytes="1")) == of(plan)
    for more in ({"names": ["x"]}, {"exclude": ["*o*"]}, {"exclude": ["t/gone", "lost"]}, {"released_for": "11d"}):
        assert of(planned(found, own, missing=True, **more)) == {}


NOTHING = "removed, there is no directory"


@pytest.mark.parametrize(
    ("found", "changes", "words"),
    [
        (directories("used", clusters=[]), {}, "is its disk mounted?"),
        (directories("used", clusters=[OTHER_CLUSTER]), {}, "is its disk mounted?"),
        (directories(), {}, "of the volumes in /srv/k8s not one directory is there"),
        (directories("nobody"), {}, "of the volumes in /srv/k8s not one directory is there"),
        (directories("used", other_paths=["lost"]), {}, "lost is there, and is no directory"),
        (directories("used", others=1001), {}, "too many files lie in /srv/k8s"),
        (
            directories("used", "old/lost", "old", parents=["old"]),
            {},
            "/srv/k8s/old/lost has the name of its directory",
        ),
        (directories("used", at="2026-03-01T12:02:00Z"), {}, "the API was asked before that"),
        (directories("used"), {"released_at": "2026-03-01T11:59:30Z"}, "when the directories were listed"),
        (directories("used"), {"released_at": None}, "nobody knows since when"),
        (directories("used"), {"claim": ("vault", "c", "u")}, 'protected namespace "vault"'),
        (directories("used"), {"claim": ("shop", "living", "u")}, "exists again"),
        (directories("used"), {"policy": "Recycle"}, "may be emptying it"),
        (directories("used"), {"finalizers": ("x/y",)}, "has the finalizer x/y"),
        (directories("used"), {"provisioner": "p", "policy": "Delete"}, "may be deleting the data"),
        (
            directories("used", "team", parents=["team"]),
            {"path": "team/lost"},
            "of the volumes in /srv/k8s/team",
        ),
        (
            directories("used", "team", "team/x", parents=["team"], other_paths=["team/lost"]),
            {"path": "team/lost"},
            "team/lost is there, and is no directory",
        ),
    ],
)
def test_what_may_be_there_all_the_same_stays(found: DirectorySet, changes: dict[str, Any], words: str) -> None:
    own = listing(
        volume("used", phase="Bound"),
        volume("x", "team/x", phase="Bound"),
        volume("lost", **{"provisioner_state": "unknown", **changes}),
        protected=["vault"],
        claims={("shop", "living"): "another"},
    )
    plan = planned(found, own, missing=True, released_for="0s")
    assert of(plan) == {}
    assert words in why(plan)


def test_a_share_that_was_not_listed_to_its_end_is_no_evidence() -> None:
    own = listing(volume("used", phase="Bound"), volume("lost"), volume("deep", "team/deep"))
    plan = planned(directories("used", problems=["/srv/k8s/x: Input/output error"]), own, missing=True)
    assert of(plan) == {}
    assert "lost: /srv/k8s/lost was not looked at" in why(plan)
    plan = planned(directories("used", "team"), own, missing=True)
    assert of(plan) == {"lost": ALONE}
    assert "deep: /srv/k8s/team/deep was not looked at" in why(plan)


def test_a_volume_whose_directory_is_in_quarantine_or_about_to_be_is_not_lost() -> None:
    own = listing(volume("used", phase="Bound"), volume("lost"), volume("again", "old"))
    found = directories("used")
    found.quarantined = [quarantined(volume("lost")), quarantined(None, "old")]
    plan = planned(found, own, missing=True)
    assert of(plan) == {}
    assert "is in quarantine, as" in why(plan)
    found.quarantined, found.intents = [], [intent(volume("lost"))]
    plan = planned(found, own, missing=True)
    assert of(plan) == {"lost": ["volume_dirs closed"], "again": ALONE}
    assert "an intent is open for it" in why(plan)


def test_two_volumes_that_name_the_same_missing_directory_stay() -> None:
    own = listing(volume("used", phase="Bound"), volume("a", "x"), volume("b", "x"))
    plan = planned(directories("used"), own, missing=True)
    assert of(plan) == {}
    assert "/srv/k8s/x is the directory of a, b" in why(plan)


# By its provisioner ------------------------------------------------------------------------------------


def by_provisioner(*volumes: Volume, uses: list[dict[str, Any]] | None = None, classes: Any = None) -> dict[str, Any]:
    own = listing(*volumes, uses=[CARRIER] if uses is None else uses)
    own.classes = {"managed": {"provisioner": "fuseim.pri/ifs"}} if classes is None else classes
    names = [(one.path or "").removeprefix("/nfs/k8s/") for one in volumes]
    parents = [name.rpartition("/")[0] for name in names if "/" in name]
    return planned(directories(*names, *parents, parents=parents), own, method="provisioner")


def test_its_provisioner_takes_exactly_the_directory_of_a_volume() -> None:
    plan = by_provisioner(dynamic("v", provisioner_state="running"))
    assert of(plan) == {"v": ["pv_cleanup absent"]}
    assert plan["steps"][0]["method"] == "provisioner"


@pytest.mark.parametrize(
    ("volumes", "more", "words"),
    [
        ([volume("v")], {}, "was not made by a provisioner"),
        ([dynamic("v", provisioner_state="stopped")], {}, "is stopped"),
        ([dynamic("v", provisioner_state="running")], {"classes": {}}, "is not there"),
        ([dynamic("v", provisioner_state="running")], {"uses": []}, "nobody knows where"),
        ([dynamic("v", "team/v", provisioner_state="running")], {}, "is not at the root of the share"),
        (
            [dynamic("v", provisioner_state="running"), volume("w", "team/v", phase="Bound")],
            {},
            "has a directory of the same name",
        ),
        (
            [
                dynamic(
                    "v",
                    provisioner_state="running",
                    driver="csi",
                    csi_driver="nfs.csi.k8s.io",
                    csi_attributes={"subdir": "a/v"},
                )
            ],
            {},
            "is nested",
        ),
    ],
)
def test_what_a_provisioner_would_take_besides_is_refused(
    volumes: list[Volume], more: dict[str, Any], words: str
) -> None:
    plan = by_provisioner(*volumes, **more)
    assert "v" not in of(plan)
    assert words in why(plan)


def test_a_volume_of_csi_at_the_root_of_its_share_may_go_by_its_provisioner() -> None:
    one = dynamic("v", provisioner_state="running", driver="csi", csi_driver="nfs.csi.k8s.io")
    one.csi_attributes = {"subDir": "v"}
    assert of(by_provisioner(one)) == {"v": ["pv_cleanup absent"]}


def test_the_volume_through_which_a_provisioner_works_is_no_users_of_what_lies_in_it() -> None:
    root = volume("root", phase="Bound")
    root.path = "/nfs/k8s"
    through = {**CARRIER, "server": None, "path": None, "claim": "shop/claim-root"}
    plan = planned(directories("v"), listing(root, volume("v"), uses=[through]))
    assert of(plan) == {"v": BOTH}
    assert of(planned(directories("v"), listing(root, volume("v")))) == {}


# What an earlier run has left --------------------------------------------------------------------------


def test_open_intents_are_finished_or_withdrawn() -> None:
    gone, there, moved, lost = (volume(name) for name in ("gone", "there", "moved", "lost"))
    leaving = volume("leaving", deleting=ASKED)
    taken, protected = volume("taken"), volume("protected", claim=("vault", "c", "u"))
    found = directories("gone", "there", "leaving", "taken", "protected", directory("other"))
    found.intents = [intent(one) for one in (gone, there, moved, lost, leaving, taken, protected)]
    found.intents += [intent(volume("back"), restored=True), intent(volume("theirs"), cluster_uid=OTHER_CLUSTER)]
    found.intents += [intent(volume("swapped"), directory=f"{SHARE}/other", inode=1)]
    found.quarantined = [quarantined(moved)]
    again = volume("again", "taken", phase="Bound")
    plan = planned(found, listing(there, leaving, again, protected=["vault"]))
    assert of(plan) == {
        "gone": ["volume_dirs quarantined"],
        "there": ["volume_dirs closed"],
        "moved": ["volume_dirs closed"],
    }
    told = why(plan)
    for words in (
        "leaving: is being deleted since",
        "lost is not there: look for it",
        "taken is the directory of volume again by now",
        'protected: an intent is open for it, but it belongs to the protected namespace "vault"',
        "back: its directory was brought back",
        "theirs: an intent is open for it, of another cluster",
        "other is another directory by now",
    ):
        assert words in told
    assert plan["changes"] == 0


def test_an_intent_is_not_finished_where_another_volume_lies_by_now() -> None:
    found = directories("gone", "gone/x", parents=["gone"])
    found.intents = [intent(volume("gone"))]
    plan = planned(found, listing(volume("x", "gone/x", phase="Bound")))
    assert of(plan) == {}
    assert "holds" in why(plan)


# Who uses it -------------------------------------------------------------------------------------------


def test_mounts_without_a_volume_are_read_from_pods_and_workloads() -> None:
    def pods(*volumes: dict[str, Any], name: str = "") -> dict[str, Any]:
        environment = [{"name": "PROVISIONER_NAME", "value": name}] if name else []
        return {"containers": [{"env": environment}], "volumes": list(volumes)}

    inline = {"nfs": {"server": "s", "path": "/a"}}
    claim = {"persistentVolumeClaim": {"claimName": "root"}}
    item = {"metadata": {"namespace": "shop", "name": "web"}, "spec": pods(inline, claim)}
    assert _uses.mounted(item, ("spec",)) == [("s", "/a", None, None)]
    job = {**item, "spec": {"jobTemplate": {"spec": {"template": {"spec": pods(inline)}}}}}
    assert _uses.mounted(job, ("spec", "jobTemplate", "spec", "template", "spec")) == [("s", "/a", None, None)]
    item["spec"] = {"template": {"spec": pods(inline, claim, name="p")}}
    way = ("spec", "template", "spec")
    assert _uses.mounted(item, way) == [("s", "/a", None, "p"), (None, None, "shop/root", "p")]
    item["spec"] = pods({"hostPath": {"path": "/srv/k8s/x"}}, {"emptyDir": {}})
    assert _uses.mounted(item, ("spec",)) == [(None, "/srv/k8s/x", None, None)]
    assert _uses.mounted({"metadata": {}, "spec": None}, way) == []


def test_they_are_in_the_listing(cluster: Cluster) -> None:
    template = {"template": {"spec": {"volumes": [{"nfs": {"server": "s", "path": "/a"}}]}}}
    cluster.add("deployments", "web", "shop", spec=template)
    cluster.add("pods", "web-1", "shop", spec=template["template"]["spec"])
    assert _uses.read(client(cluster)) == [
        {"who": "Pod shop/web-1", "server": "s", "path": "/a", "claim": None, "provisioner": None}
    ]


# Any of all that ---------------------------------------------------------------------------------------


@given(
    phases=st.lists(st.sampled_from(["Pending", "Available", "Bound", "Released", "Failed"]), max_size=6),
    ages=st.lists(st.sampled_from([None, "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z"]), min_size=6, max_size=6),
    namespaces=st.lists(st.sampled_from(["shop", "vault"]), min_size=6, max_size=6),
    paths=st.lists(st.sampled_from(["a", "b", "c", "a/x", "d", "e"]), min_size=6, max_size=6),
    listed=st.sets(st.sampled_from(["a", "b", "c", "a/x", "d", "e", "f"])),
    living=st.sets(st.integers(0, 5)),
    orphans=st.booleans(),
    owned=st.booleans(),
    missing=st.booleans(),
    files=st.sets(st.sampled_from(["a", "b", "a/x", "d"])),
)
def test_only_what_nobody_needs_is_ever_planned(
    phases: list[str],
    ages: list[str | None],
    namespaces: list[str],
    paths: list[str],
    listed: set[str],
    living: set[int],
    orphans: bool,
    owned: bool,
    missing: bool,
    files: set[str],
) -> None:
    volumes = {}
    for number, phase in enumerate(phases):
        one = volume(f"v{number}", paths[number], phase=phase, released_at=ages[number])
        one.claim = (namespaces[number], f"c{number}", f"u{number}")
        volumes[one.name] = one
    claims = {(namespaces[number], f"c{number}"): "again" for number in living}
    own = listing(*volumes.values(), protected=["vault"], claims=claims)
    clusters = [own.cluster_uid] if owned else []
    found = directories(*sorted(listed), parents=["a"], clusters=clusters, other_paths=sorted(files - listed))
    plan = planned(found, own, orphans=orphans, missing=missing)
    inside = {one.path for one in volumes.values()}
    for step in plan["steps"]:
        path = step["directory"].replace(SHARE, "/nfs/k8s")
        near = [each for each in inside if each and (f"{each}/").startswith(f"{path}/")]
        planned_volume = volumes.get(step["item"])
        if planned_volume is None:
            assert orphans
            assert owned
            assert not near
            assert not any(path.startswith(f"{each}/") for each in inside)
            continue
        one = planned_volume
        assert one.phase in ("Released", "Failed")
        assert one.released_at == "2026-02-01T00:00:00Z"
        assert one.claim is not None
        assert one.claim[0] != "vault"
        assert one.claim[:2] not in claims
        if step.get("method") == "missing":
            below = path.removeprefix("/nfs/k8s/")
            assert missing
            assert owned
            assert below not in listed | files
            assert any((each.path or "").removeprefix("/nfs/k8s/") in listed for each in volumes.values())
            assert not [each for each in plan["steps"] if each["module"] == "volume_dirs" and each["item"] == one.name]
            assert [each.path for each in volumes.values()].count(path) == 1
            continue
        assert near == [path]
        assert [each.path for each in volumes.values()].count(path) == 1
        assert step["directory"] not in plan["keep"]
    moved = {step["directory"] for step in plan["steps"] if step.get("method") != "missing"}
    assert not moved & set(plan["keep"])
