# SPDX-License-Identifier: GPL-3.0-or-later
"""What each directory is called; and that nothing is called an orphan that anybody may be using."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Classified, Rules, Use
from ansible_collections.clusterkit.storage.plugins.module_utils._classify import CLASSES, classify, parents_of
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.tests.shares import (
    ASKED,
    DAY,
    HOST,
    OTHER_CLUSTER,
    SERVERS,
    SHARE,
    directories,
    directory,
    intent,
    listing,
    volume,
)
from hypothesis import given
from hypothesis import strategies as st

MAP = ServerMap(SERVERS)


def judged(
    found: DirectorySet, *listings: Listing, uses: list[Use] | None = None, servers: ServerMap = MAP, **rules: Any
) -> Classified:
    asked = [] if uses is None else uses
    result = classify([found], listings, servers, asked, Rules(**rules))
    if not rules.get("exclude"):
        # With a pattern to look for, even one that nothing fits, each directory is judged by all of the rules.
        by_all = classify([found], listings, servers, asked, Rules(**{**rules, "exclude": ["nothing-of-this-name"]}))
        assert result.directories == by_all.directories
    return result


def kinds(result: Classified) -> dict[str, str]:
    return {one.path.removeprefix(f"{SHARE}/"): one.kind for one in result.directories}


def reasons(result: Classified) -> dict[str, str]:
    return {one.path.removeprefix(f"{SHARE}/"): one.reason for one in result.directories}


def test_every_class() -> None:
    found = directories(
        "kept-out", "strange", "moving", "twice", "team", "team/a", "going", "bound", "pending", "taken", "free",
        "released", "failed", "archived-pvc-1", "nobody", parents=["team"],
    )  # fmt: skip
    found.intents = [intent(volume("moving"))]
    own = listing(
        volume("kept-out"),
        volume("moving"),
        volume("twice"),
        volume("again", "twice/"),
        volume("a", "team/a"),
        volume("going", deleting=ASKED),
        volume("bound", phase="Bound"),
        volume("pending", phase="Pending", claim=None),
        volume("taken", phase="Available"),
        volume("free", phase="Available", claim=None),
        volume("released"),
        volume("failed", phase="Failed"),
        volume("lost"),
    )
    other = listing(volume("strange"), cluster=OTHER_CLUSTER)
    result = judged(found, own, other, exclude=["kept-*"])
    assert kinds(result) == {
        "kept-out": "foreign", "strange": "foreign", "moving": "quarantined", "twice": "shared", "team": "parent",
        "team/a": "released", "going": "deleting", "bound": "bound", "pending": "bound", "taken": "bound",
        "free": "available", "released": "released", "failed": "failed", "archived-pvc-1": "archived",
        "nobody": "orphan",
    }  # fmt: skip
    assert [one.name for one, _place in result.missing] == ["lost"]
    assert parents_of(own.volumes, MAP) == {HOST: [f"{SHARE}/team"]}
    assert f"{SHARE}/released" in result.keep[HOST]
    assert SHARE in result.keep[HOST]


def test_the_root_of_a_share_is_judged_if_it_is_a_volume() -> None:
    whole = volume("whole")
    whole.path = "/nfs/k8s/"
    result = judged(directories("data"), listing(whole))
    assert kinds(result) == {SHARE: "released", "data": "shared"}
    assert result.directories[0].is_root
    result = judged(directories("data"), listing(whole, volume("data")))
    assert kinds(result) == {SHARE: "parent", "data": "shared"}


def test_a_share_in_a_share_is_judged_as_its_own() -> None:
    inner = f"{SHARE}/inner"
    servers = [{**SERVERS[0], "shares": [*SERVERS[0]["shares"], {"server_path": inner, "client_path": inner}]}]
    one = volume("inner")
    one.path = inner
    outer = directories("inner", "inner/x", "other", parents=["inner"])
    result = classify([outer], [listing(one)], ServerMap(servers), [], Rules())
    assert kinds(result) == {"inner": "parent", "other": "orphan"}


@pytest.mark.parametrize(
    ("found", "own", "why"),
    [
        (directories("x", clusters=[]), listing(), "no owner file"),
        (directories("x", clusters=[OTHER_CLUSTER]), listing(), "no complete list of its volumes"),
        (directories("x"), listing(complete=False), "no complete list of its volumes"),
        (directories("x", problems=["cut"]), listing(), "not everything could be listed: cut"),
        (directories("x", at="2026-03-01T12:05:00Z"), listing(), "was asked before that"),
        (directories("x"), listing(volume("v", server="nas")), "volume v means by nas:/nfs/k8s/v"),
        (directories("x"), listing(volume("v", "../k8s/x")), "volume v means by"),
        (
            directories("x"),
            listing(volume("v", "${pvc.name}", driver="csi", csi_driver="nfs.csi.k8s.io", server=None)),
            "volume v means by",
        ),
        (directories("x", others=1), listing(volume("v")), "is a link that leads to another directory"),
        (directories("x", "v"), listing(volume("w", "v/deep/w")), "is a link that leads to another directory"),
        (directories(directory("x", age=3600)), listing(), "within the last 24 hours"),
        (directories(directory("x", birthtime=1e12)), listing(), "within the last 24 hours"),
        (directories(directory("x", mount_point=True)), listing(), "is a mount point"),
    ],
)
def test_what_nobody_knows_enough_of_is_no_orphan(found: DirectorySet, own: Listing, why: str) -> None:
    result = judged(found, own)
    assert kinds(result)["x"] == "foreign"
    assert why in reasons(result)["x"]


def test_a_directory_without_a_time_of_birth_counts_by_its_change() -> None:
    assert kinds(judged(directories(directory("x", birthtime=None)), listing()))["x"] == "orphan"


def test_a_server_that_is_said_to_be_another_one_is_in_nobodys_way() -> None:
    own = listing(volume("v", server="nas"))
    assert kinds(judged(directories("x"), own, foreign_servers=["nas"]))["x"] == "orphan"


@pytest.mark.parametrize("path", ["/nfs/k8s/x", "/nfs/k8s/x/in", "/nfs/k8s", "/nfs"])
def test_who_mounts_without_a_volume_keeps_what_he_mounts(path: str) -> None:
    uses = [Use("Pod shop/web", "192.0.2.10", path)]
    result = judged(directories("x", "y"), listing(), uses=uses)
    assert kinds(result)["x"] == "foreign"
    assert "Pod shop/web" in reasons(result)["x"]
    assert (kinds(result)["y"] == "orphan") is path.startswith("/nfs/k8s/x")
    result = judged(directories("x", "y"), listing(), uses=uses, allow_mounted_above=True)
    assert (kinds(result)["x"] == "orphan") is (path == "/nfs/k8s")


@pytest.mark.parametrize(("path", "kind"), [("x", "foreign"), ("x/in/", "foreign"), ("y", "orphan"), ("", "orphan")])
def test_a_pod_with_a_path_of_its_host_may_run_on_the_server(path: str, kind: str) -> None:
    result = judged(directories("x"), listing(), uses=[Use("Pod shop/web", "", f"{SHARE}/{path}".rstrip("/"))])
    assert kinds(result) == {"x": kind}


def test_where_volumes_are_missing_orphans_are_looked_at_twice() -> None:
    found = directories("x", "y", "team", "team/lost", parents=["team"])
    own = listing(volume("v", "away/lost"), volume("y"), volume("z", "team/z"))
    assert kinds(judged(found, own)) == {"x": "foreign", "y": "released", "team": "parent", "team/lost": "foreign"}
    result = judged(directories("x", "lost"), listing(volume("lost", "away/lost"), volume("x")))
    assert kinds(result) == {"x": "released", "lost": "foreign"}
    assert "has the name of the directory of volume lost" in reasons(result)["lost"]
    result = judged(directories("x", "y"), listing(volume("v"), volume("w")))
    assert kinds(result) == {"x": "foreign", "y": "foreign"}
    assert "of 2 volumes in it not one directory is there" in reasons(result)["x"]


def test_without_knowing_the_users_nothing_is_an_orphan() -> None:
    result = classify([directories("x", "archived-y")], [listing()], MAP, None, Rules())
    assert kinds(result) == {"x": "foreign", "archived-y": "archived"}


def test_one_directory_under_two_names_is_shared() -> None:
    twin = {**directory("x"), "path": f"{SHARE}/y"}
    result = judged(directories("x", twin), listing(volume("x")))
    assert kinds(result) == {"x": "shared", "y": "shared"}


def test_a_volume_below_a_parent_that_was_not_listed_is_not_called_missing() -> None:
    result = judged(directories("team"), listing(volume("a", "team/a")))
    assert (result.missing, [one.name for one, _place in result.unlisted]) == ([], ["a"])
    assert kinds(result) == {"team": "parent"}


# Any share, any volumes --------------------------------------------------------------------------------

NAMES = ["a", "b", "a/x", "a/y", "b/x", "archived-a", "archived-b"]
PHASES = ["Pending", "Available", "Bound", "Released", "Failed"]


@st.composite
def volumes(draw: Any, prefix: str) -> list[Volume]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        path = draw(st.sampled_from([*NAMES, "", "a//x", "./b", "c", "a/x/y/z", "../k8s/a"]))
        one = volume(f"{prefix}{number}", phase=draw(st.sampled_from(PHASES)))
        one.path = f"/nfs/k8s/{path}"
        one.server = draw(st.sampled_from(["192.0.2.10", "192.0.2.10", "tank", "elsewhere"]))
        one.deleting = draw(st.sampled_from([None, None, ASKED]))
        found.append(one)
    return found


def related(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


@given(
    listed=st.sets(st.sampled_from(NAMES)),
    own=volumes("own"),
    others=st.none() | volumes("other"),
    owners=st.sampled_from([[], [OTHER_CLUSTER], None]),
    complete=st.booleans(),
    age=st.sampled_from([10.0, 2 * DAY]),
    uses=st.none() | st.lists(st.sampled_from(["a", "b/x", "b"])),
)
def test_nothing_in_use_is_ever_called_unused(
    listed: set[str],
    own: list[Volume],
    others: list[Volume] | None,
    owners: list[str] | None,
    complete: bool,
    age: float,
    uses: list[str] | None,
) -> None:
    mine = listing(*own, complete=complete)
    clusters = [mine.cluster_uid, OTHER_CLUSTER] if owners is None else [*owners, mine.cluster_uid]
    found = directories(*(directory(name, age=age) for name in sorted(listed)), clusters=clusters, parents=["a", "b"])
    listings = [mine] if others is None else [mine, listing(*others, cluster=OTHER_CLUSTER)]
    mounts = None if uses is None else [Use("someone", "tank", f"/nfs/k8s/{path}") for path in uses]
    result = classify([found], listings, MAP, mounts, Rules())
    by_all = classify([found], listings, MAP, mounts, Rules(exclude=["nothing-of-this-name"]))
    assert result.directories == by_all.directories
    places = [
        (one, cluster, place.directory)
        for cluster, group in (("own", own), ("other", others or []))
        for one in group
        for place in [MAP.find(one.server, one.path)]
        if place
    ]
    assert {one.kind for one in result.directories} <= set(CLASSES)
    assert {one.path for one in result.directories} >= {f"{SHARE}/{name}" for name in listed}
    for one in result.directories:
        users = [(each, cluster) for each, cluster, path in places if path == one.path]
        near = [each for each, _cluster, path in places if related(path, one.path)]
        if one.kind in ("orphan", "archived"):
            assert not near
            assert complete
            assert others is not None or OTHER_CLUSTER not in clusters
        if one.kind == "orphan":
            assert age > DAY
            assert uses is not None
            assert not any(related(one.path, f"{SHARE}/{path}") for path in uses)
            assert not any(MAP.find(each.server, each.path) is None for each in [*own, *(others or [])])
        if one.kind in ("released", "failed", "available", "bound", "deleting"):
            assert len(users) == len(near) == 1
            [(user, cluster)] = users
            assert cluster == "own"
            assert one.volume is user
            assert bool(user.deleting) is (one.kind == "deleting")
            if one.kind in ("released", "failed"):
                assert user.phase.lower() == one.kind
    lost = {one.name for one, _place in result.missing}
    assert not lost & {each.name for each, _cluster, path in places if path.removeprefix(f"{SHARE}/") in listed}
