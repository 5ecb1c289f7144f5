# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a volume holds is in quarantine before any claim may take it, or it is not released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _cleanup_run,
    _cleanup_summary,
    _listing,
    _plan,
    _planner,
    _reclaim,
    _reclaim_content,
    _reclaim_plan,
    _reclaim_run,
    _volume_dirs,
    _volume_dirs_run,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.plugins.modules import pv_reclaim, storage_plan
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, arguments, client
from ansible_collections.clusterkit.storage.tests.reclaimed import release_controller, states
from ansible_collections.clusterkit.storage.tests.served_cluster import Served
from ansible_collections.clusterkit.storage.tests.server_disk import content, tree
from ansible_collections.clusterkit.storage.tests.shares import (
    HOST,
    OTHER_CLUSTER,
    SERVERS,
    SHARE,
    directories,
    directory,
    intent,
    listing,
    volume,
    write_directories,
    write_listing,
)
from hypothesis import given
from hypothesis import strategies as st


def asked(**more: Any) -> dict[str, Any]:
    known = {**_reclaim.ARGUMENTS, **_reclaim_content.ARGUMENTS}
    defaults = {name: one.get("default") for name, one in known.items()}
    return {**defaults, "release": "open", "content": "quarantine", "storage_servers": SERVERS, **more}


def planned(folder: Path, found: DirectorySet, chosen: Listing, whole: Listing, **more: Any) -> dict[str, Any]:
    chosen.complete = False
    files = [{"host": HOST, "path": write_directories(found, folder / "dirs")}]
    request = asked(**{"volumes": write_listing(whole, folder / "whole"), "directories": files, **more})
    request = {**dict.fromkeys(storage_plan.ARGUMENTS), "action": "reclaim", "host": "api", "reclaim": request}
    return _planner.plan({**request, "listing": write_listing(chosen, folder / "chosen")}).plan


def of(plan: dict[str, Any]) -> dict[str, list[str]]:
    steps: dict[str, list[str]] = {}
    for step in plan["steps"]:
        steps.setdefault(step["item"], []).append(step["module"])
    return steps


def why(plan: dict[str, Any]) -> str:
    return "; ".join(f"{one['item']}: {one['reason']}" for one in plan["refusals"])


BOTH = ["volume_dirs", "pv_reclaim"]


def test_what_a_volume_holds_goes_before_it_is_opened(tmp_path: Path) -> None:
    one, other = volume("v"), volume("used", phase="Bound")
    plan = planned(tmp_path, directories("v", "used"), listing(one), listing(one, other))
    assert of(plan) == {"v": BOTH}
    assert plan["changes"] == 1
    move, release = plan["steps"]
    assert (move["state"], move["scope"], move["host"], move["directory"]) == (
        "quarantined",
        "content",
        HOST,
        f"{SHARE}/v",
    )
    assert release["method"] == "quarantine"
    assert release["reason"] == "any claim may take it now; its old content is in quarantine"
    assert plan["keep"] == [SHARE, f"{SHARE}/used"]
    assert plan["request"]["storage_servers"] == SERVERS
    assert not list(_volume_dirs.step_problems("s", move, "quarantined", [SHARE], more_objects=True))


def test_what_stays_where_it_is_needs_no_server(tmp_path: Path) -> None:
    chosen = listing(volume("v"))
    bare: dict[str, Any] = {"volumes": None, "directories": [], "storage_servers": []}
    assert of(planned(tmp_path, directories(), chosen, listing(), content="keep", **bare)) == {"v": ["pv_reclaim"]}
    for name in bare:
        with pytest.raises(ValueError, match=f"{name}: content: quarantine needs it"):
            planned(tmp_path, directories("v"), chosen, listing(volume("v")), **{name: bare[name]})
    for release in ("reserved", None):
        with pytest.raises(ValueError, match="content: quarantine belongs to release: open"):
            planned(tmp_path, directories("v"), chosen, listing(), release=release, policy="Retain")
    with pytest.raises(ValueError, match="is of another cluster"):
        planned(tmp_path, directories("v"), chosen, listing(cluster=OTHER_CLUSTER))
    with pytest.raises(ValueError, match="not of all volumes"):
        planned(tmp_path, directories("v"), chosen, listing(complete=False))
    # Of a volume that is not opened the content stays: a label is no release.
    used = volume("used", phase="Bound")
    plan = planned(tmp_path, directories("v", "used"), listing(volume("v"), used), listing(volume("v"), used))
    assert "used: is Bound" in why(plan)
    labels = {"labels": {"a": "b"}}
    free = volume("free", phase="Available", claim=None)
    assert of(planned(tmp_path, directories("free"), listing(free), listing(free), **labels)) == {
        "free": ["pv_reclaim"]
    }


@pytest.mark.parametrize(
    ("one", "found", "others", "words"),
    [
        (volume("v"), directories(), [], "/srv/k8s/v on nfs1 is not there, or was not listed"),
        (volume("v", "t/v"), directories("t"), [], "/srv/k8s/t/v on nfs1 is not there, or was not listed"),
        (volume("v", server="elsewhere"), directories("v"), [], "nobody knows for sure in which directory elsewhere:"),
        (volume("v", driver="csi", csi_driver="other"), directories("v"), [], "it is no volume on NFS"),
        (
            volume("v", phase="Available", claim=("a", "b", "")),
            directories("v"),
            [],
            "a claim may take it at any moment",
        ),
        (volume("v"), directories("v"), [volume("w", "v")], "/srv/k8s/v is shared: the directory of v, w"),
        (volume("v"), directories("v", "v/w"), [volume("w", "v/w")], "/srv/k8s/v is parent: holds /srv/k8s/v/w"),
        (volume("v", "w/v"), directories("w", "w/v", parents=["w"]), [volume("w")], "is shared: lies in /srv/k8s/w"),
        (volume("v"), directories(directory("v", mount_point=True)), [], "/srv/k8s/v is a mount point"),
    ],
)
def test_a_volume_whose_content_cannot_be_put_away_is_not_opened(
    one: Volume, found: DirectorySet, others: list[Volume], words: str, tmp_path: Path
) -> None:
    plan = planned(tmp_path, found, listing(one), listing(one, *others), policy="Retain")
    assert of(plan) == {}
    assert "v: its content cannot be put away first: " in why(plan)
    assert words in why(plan)


def test_what_an_earlier_run_has_begun_is_done_again(tmp_path: Path) -> None:
    found = directories("v")
    found.intents = [intent(volume("v"), scope="content")]
    plan = planned(tmp_path, found, listing(volume("v")), listing(volume("v")))
    assert of(plan) == {"v": BOTH}
    plan = planned(tmp_path, found, listing(volume("v")), listing(volume("v"), volume("w", "v")))
    assert of(plan) == {}
    assert "v is quarantined: the directory of v, w" in why(plan)


@given(
    phases=st.lists(st.sampled_from(["Available", "Bound", "Released", "Failed"]), max_size=5),
    paths=st.lists(st.sampled_from(["a", "b", "c", "a/x", "d"]), min_size=5, max_size=5),
    listed=st.sets(st.sampled_from(["a", "b", "c", "a/x", "d"])),
    chosen=st.sets(st.integers(0, 4)),
)
def test_no_volume_is_opened_with_its_content_and_no_other_content_moves(
    phases: list[str], paths: list[str], listed: set[str], chosen: set[int]
) -> None:
    volumes = [volume(f"v{number}", paths[number], phase=phase) for number, phase in enumerate(phases)]
    request = _reclaim.Request.of(asked())
    mine = [one for number, one in enumerate(volumes) if number in chosen]
    decisions = [_reclaim.decide(one, request, _reclaim.Facts()) for one in mine]
    contents = _reclaim_content.find(
        decisions, [directories(*sorted(listed), parents=["a"])], listing(*volumes), SERVERS
    )
    plan = _reclaim_plan.plan(decisions, request, cluster_uid="c", listed_at="t", host="api", contents=contents)
    moves = {step["item"]: step for step in plan["steps"] if step["module"] == "volume_dirs"}
    releases = {step["item"] for step in plan["steps"] if step["module"] == "pv_reclaim"}
    assert set(moves) == releases
    inside = [one.path or "" for one in volumes]
    for one in volumes:
        if one.name not in moves:
            continue
        assert one in mine
        assert one.phase in ("Released", "Failed")
        assert one.path is not None
        assert one.path.removeprefix("/nfs/k8s/") in listed
        near = [
            path for path in inside if f"{path}/".startswith(f"{one.path}/") or f"{one.path}/".startswith(f"{path}/")
        ]
        assert near == [one.path]
        assert moves[one.name]["directory"] not in plan["keep"]
        assert moves[one.name]["directory"] == one.path.replace("/nfs/k8s", SHARE)


# With the modules, on a real directory -----------------------------------------------------------------


class Site(Served):
    """A server with a share, a cluster with released volumes in it, and a plan to open them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        for name in ("a", "b"):
            reference = {"namespace": "shop", "name": f"claim-{name}", "uid": f"c-{name}"}
            spec: dict[str, Any] = {"nfs": {"server": "192.0.2.10", "path": f"/nfs/k8s/{name}"}, "claimRef": reference}
            spec |= {"persistentVolumeReclaimPolicy": "Retain"}
            cluster.add("persistentvolumes", name, spec=spec, status={"phase": "Released"})
            self.world.volume(name)
        cluster.controller = release_controller(cluster)
        self.world.run("present", clusters=[self.uid])

    @property
    def api(self) -> Any:
        return client(self.cluster, workers=1, retry=2.0)

    def plan(self) -> dict[str, Any]:
        dest = str(self.folder / "dirs")
        self.world.info(dest=dest)
        chosen = _listing.read(self.api, Selection({"phases": ["Released"]}), plan_for="reclaim")
        whole = _listing.read(self.api, Selection({}), plan_for="cleanup")
        files = {"directories": [{"host": HOST, "path": dest}], "volumes": write_listing(whole, self.folder / "whole")}
        request = {**dict.fromkeys(storage_plan.ARGUMENTS), "action": "reclaim", "host": "api"}
        request |= {"reclaim": asked(storage_servers=self.servers, **files)}
        made = _planner.plan({**request, "listing": write_listing(chosen, self.folder / "chosen")}).plan
        self.file = self.folder / "plan.json"
        self.file.write_text(_plan.write(made))
        return made

    def intended(self) -> dict[str, Any]:
        objects = str(self.folder / "objects.jsonl")
        given = {"state": "intended", "plan": str(self.file), "wait_timeout": 1, "objects": objects}
        asked_for = {**arguments(_cleanup_run.ARGUMENTS, **given), "retry_timeout": 2}
        ready = _cleanup_run.clean_up(self.api, asked_for, check_mode=False, diff=False)
        ids = ready.more["directories"]["intended"].get(HOST, [])
        return self.on_server("intended", ids, objects=objects)

    def on_server(self, state: str, only: list[str], **more: Any) -> dict[str, Any]:
        given = self.world.arguments(state, None, plan=str(self.file), only=only, cluster_uid=self.uid, **more)
        outcome = _volume_dirs_run.run(_volume_dirs.read_request(given), self.world.places)
        return {"asked": only, "directories": outcome.items, "msg": outcome.problem}

    def release(self, emptied: list[str]) -> Outcome:
        given = arguments(pv_reclaim.ARGUMENTS, plan=str(self.file), emptied=emptied)
        return _reclaim_run.reclaim(self.api, {**given, "retry_timeout": 2}, check_mode=False, diff=False)

    def run(self, plan: dict[str, Any]) -> Outcome:
        """As the playbook does it."""
        intended = self.intended()
        moved = self.on_server("quarantined", _cleanup_summary.fine(intended))
        done = _cleanup_summary.fine(moved)
        self.on_server("closed", [number for number in intended["asked"] if number not in done])
        return self.release(_cleanup_summary.done(plan, {HOST: moved}, "quarantined"))

    def phase(self, name: str) -> str:
        return str(self.cluster.get("persistentvolumes", name)["status"]["phase"])

    @property
    def manifests(self) -> dict[str, Path]:
        entries = (self.world.own / "trash").iterdir()
        return {json.loads((one / "manifest.json").read_text())["volume"]["name"]: one for one in entries}


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


def test_an_opened_volume_is_empty_and_its_content_can_come_back(site: Site) -> None:
    share = site.world.share
    before, around = content(share / "a"), tree(share / "neighbour")
    inode = (share / "a").stat().st_ino
    plan = site.plan()
    assert states(site.run(plan)) == {"a": "changed", "b": "changed"}
    assert (site.phase("a"), site.phase("b")) == ("Available", "Available")
    assert list((share / "a").iterdir()) == []
    assert (share / "a").stat().st_ino == inode
    assert tree(share / "neighbour") == around
    manifest = json.loads((site.manifests["a"] / "manifest.json").read_text())
    assert manifest["objects"]["volume"]["spec"]["claimRef"]["uid"] == "c-a"
    # Once more: there is nothing left to do, and what the next tenant writes stays.
    (share / "a/new").write_text("of the next tenant")
    assert states(site.run(plan)) == {"a": "unchanged", "b": "unchanged"}
    assert [path.name for path in (share / "a").iterdir()] == ["new"]
    (share / "a/new").unlink()
    [found] = [one for one in site.world.info()["quarantined"] if one["volume"]["name"] == "a"]
    step = {"share": str(share), "entry": found["entry"], "volume": found["volume"]}
    step["precondition"] = {key: found[key] for key in ("device", "inode")}
    assert not site.world.run("restored", step, cluster_uid=site.uid).problem
    after = content(share / "a")
    assert after.pop("")[0] == before.pop("")[0]
    assert after == before


def test_a_volume_whose_content_was_not_moved_is_not_released(site: Site) -> None:
    plan = site.plan()
    assert states(site.release([])) == {"a": "refused", "b": "refused"}
    site.world.open_by(site.world.share / "a/file")
    outcome = site.run(plan)
    assert states(outcome) == {"a": "refused", "b": "changed"}
    assert "its content is not in quarantine" in outcome.problem
    assert (site.phase("a"), site.phase("b")) == ("Released", "Available")
    assert (site.world.share / "a/file").exists()
    assert list(site.manifests) == ["b"]
    assert not list((site.world.own / "intents").iterdir())
    for wrong in ("nope", "neighbour"):
        with pytest.raises(ValueError, match=f'emptied: "{wrong}" is no volume of the plan'):
            site.release([wrong])


def test_a_volume_that_changed_meanwhile_keeps_what_it_holds(site: Site) -> None:
    plan = site.plan()
    site.cluster.change("persistentvolumes", "a", {"metadata": {"labels": {"touched": "yes"}}})
    site.cluster.add("persistentvolumeclaims", "claim-b", "shop", status={"phase": "Pending"})
    assert states(site.run(plan)) == {"a": "refused", "b": "refused"}
    assert site.manifests == {}
    assert (site.world.share / "a/file").exists()
    assert (site.world.share / "b/file").exists()


def test_an_empty_volume_is_opened_and_the_next_run_has_nothing_to_say(site: Site) -> None:
    for path in (site.world.share / "a").iterdir():
        path.rename(site.folder / f"away-{path.name}")
    assert states(site.run(site.plan())) == {"a": "changed", "b": "changed"}
    outcome = site.world.run("closed", cluster_uid=site.uid)
    assert (outcome.warnings, outcome.recovered) == ([], [])


def test_only_a_plan_to_clean_up_removes(site: Site) -> None:
    site.plan()
    given = arguments(_cleanup_run.ARGUMENTS, state="absent", plan=str(site.file), wait_timeout=1)
    with pytest.raises(ValueError, match="is a plan to reclaim; state absent expects one to cleanup"):
        _cleanup_run.clean_up(site.api, {**given, "retry_timeout": 2}, check_mode=False, diff=False)
    assert site.phase("a") == "Released"
