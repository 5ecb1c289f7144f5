# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules in the order of the playbooks, on real directories: whatever run ends where, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _cleanup,
    _cleanup_run,
    _cleanup_summary,
    _listing,
    _plan,
    _planner,
    _trash_plan,
    _volume_dirs,
    _volume_dirs_run,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.modules import storage_plan
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, Key, arguments, client
from ansible_collections.clusterkit.storage.tests.served_cluster import Served
from ansible_collections.clusterkit.storage.tests.server_disk import content, tree

PROTECTION = "kubernetes.io/pv-protection"
HOST = "nfs1"


def controllers(cluster: Cluster) -> None:
    """The finalizer of volumes that are to go is taken away; those that are made get a phase."""

    def act(key: Key) -> None:
        thing = cluster.things[key]
        if key[0] != "persistentvolumes":
            return
        if thing["metadata"].get("deletionTimestamp"):
            cluster.remove(key[0], key[2])
        elif "status" not in thing:
            cluster.change(key[0], key[2], {"status": {"phase": "Available"}})

    cluster.controller = act


class Site(Served):
    """A server with a share, and a cluster with volumes in it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        controllers(cluster)

    def volume(self, name: str, path: str = "", phase: str = "Released", **spec: Any) -> None:
        content = {
            "nfs": {"server": "192.0.2.10", "path": f"/nfs/k8s/{path or name}"},
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": "shop", "name": f"claim-{name}", "uid": f"c-{name}"},
            **spec,
        }
        status = {"phase": phase, "lastPhaseTransitionTime": "2026-01-01T00:00:00Z"}
        self.cluster.add("persistentvolumes", name, metadata={"finalizers": [PROTECTION]}, spec=content, status=status)
        (self.world.share / (path or name)).parent.mkdir(exist_ok=True)
        self.world.volume(path or name)

    def note(self) -> None:
        self.world.run("present", clusters=[self.uid])

    def api(self) -> Any:
        return client(self.cluster, workers=1, retry=2.0)

    def look(self, *, later: bool = False, parents: list[str] | None = None) -> dict[str, Any]:
        """The files that storage_plan takes. C(later): two days from now, by the clock of the server."""
        if later:
            self.world.clock = Path(self.world.share).stat().st_ctime + 2 * 86400
        dest = str(self.folder / "directories.jsonl")
        self.world.info(dest=dest, objects=True, parents=parents or [])
        listing = _listing.read(self.api(), Selection({}), plan_for="cleanup")
        if later:
            listing.listed_at = "2100-01-01T00:00:00Z"
        self.world.clock = None
        file = self.folder / "volumes.jsonl"
        file.write_text("".join(f"{line}\n" for line in _listing.lines(listing)))
        (self.folder / "mounts.jsonl").write_text("")
        directories = [{"host": HOST, "path": dest}]
        return {"listing": str(file), "directories": directories, "storage_servers": self.servers}

    def plan(
        self, action: str, *, later: bool = False, parents: list[str] | None = None, **more: Any
    ) -> dict[str, Any]:
        files = self.look(later=later, parents=parents)
        listing = files.pop("listing")
        known = {"cleanup": _cleanup.ARGUMENTS, "undelete": _trash_plan.UNDELETE, "purge": _trash_plan.PURGE}[action]
        asked = {**{name: one.get("default") for name, one in known.items()}, **files, **more}
        given = dict.fromkeys(storage_plan.ARGUMENTS) | {"action": action, "host": "api", "listing": listing}
        made = _planner.plan({**given, action: asked})
        self.file = self.folder / f"{action}-plan.json"
        self.file.write_text(_plan.write(made.plan))
        return made.plan

    def on_cluster(self, state: str, **more: Any) -> dict[str, Any]:
        given = {"state": state, "plan": str(self.file), "wait_timeout": 1, **more}
        asked = {**arguments(_cleanup_run.ARGUMENTS, **given), "retry_timeout": 2}
        outcome = _cleanup_run.clean_up(self.api(), asked, check_mode=False, diff=False)
        return {**outcome.more, "items": outcome.items, "msg": outcome.problem}

    def on_server(self, state: str, only: list[str], **more: Any) -> dict[str, Any]:
        given = self.world.arguments(state, None, plan=str(self.file), only=only, cluster_uid=self.uid, **more)
        outcome = _volume_dirs_run.run(_volume_dirs.read_request(given), self.world.places)
        return {"asked": only, "directories": outcome.items, "msg": outcome.problem}

    def clean_up(self, plan: dict[str, Any], *, until: int = 9) -> None:
        """As the playbook does it, and no further than C(until)."""
        objects = str(self.folder / "objects.jsonl")
        ready = self.on_cluster("intended", objects=objects)
        if until < 1:
            return
        ids = ready["directories"]["intended"].get(HOST, [])
        intended = self.on_server("intended", ids, objects=objects)
        if until < 2:
            return
        names = _cleanup_summary.done(plan, {HOST: intended}, "quarantined")
        names += [step["item"] for step in plan["steps"] if step.get("method") == "missing"]
        removed = self.on_cluster("absent", only=names)
        if until < 3:
            return
        moved = self.on_server("quarantined", _cleanup_summary.to_do(plan, removed, HOST, "quarantined"))
        assert not moved["msg"], moved
        if until < 4:
            return
        closed = self.on_server("closed", _cleanup_summary.to_do(plan, removed, HOST, "closed"))
        assert not closed["msg"], closed

    def undelete(self, plan: dict[str, Any], *, until: int = 9) -> None:
        back = self.on_server("restored", _cleanup_summary.to_do(plan, {}, HOST, "restored", waits=False))
        assert not back["msg"], back
        if until < 1:
            return
        names = _cleanup_summary.done(plan, {HOST: back}, "restored")
        names += [step["item"] for step in plan["steps"] if step["state"] == "closed"]
        made = self.on_cluster("present", only=names)
        assert not made["msg"], made
        if until < 2:
            return
        closed = self.on_server("closed", _cleanup_summary.to_do(plan, made, HOST, "closed"))
        assert not closed["msg"], closed

    @property
    def volumes(self) -> set[str]:
        return {key[2] for key in self.cluster.things if key[0] == "persistentvolumes"}

    @property
    def intents(self) -> list[str]:
        return sorted(path.name for path in (self.world.own / "intents").iterdir())

    @property
    def manifests(self) -> dict[str, Path]:
        found = {}
        for path in (self.world.own / "trash").iterdir():
            manifest = json.loads((path / "manifest.json").read_text())
            found[Path(manifest["directory"]).name] = path / "data"
        return found


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    made = Site(cluster, tmp_path)
    for name in ("old", "older"):
        made.volume(name)
    made.volume("deep", "team/deep")
    made.volume("used", phase="Bound")
    made.note()
    return made


PARENTS = ["team"]


def parents(site: Site) -> list[str]:
    return [str(site.world.share / name) for name in PARENTS]


def test_what_is_planned_goes_and_comes_back_as_it_was(site: Site) -> None:
    share = site.world.share
    before = {name: content(share / name) for name in ("old", "older", "team/deep")}
    around = tree(site.world.share / "used")
    plan = site.plan("cleanup", parents=parents(site), exclude=["neighbour"])
    assert plan["refusals"] == []
    assert {step["item"] for step in plan["steps"]} == {"old", "older", "deep"}
    site.clean_up(plan)
    assert site.volumes == {"used"}
    assert set(site.manifests) == {"old", "older", "deep"}
    assert site.intents == []
    assert tree(share / "used") == around
    assert site.plan("cleanup", parents=parents(site))["steps"] == []
    back = site.plan("undelete", parents=parents(site), names=["old", "deep"])
    assert {step["host"] for step in back["steps"]} == {"api", HOST}
    site.undelete(back)
    assert site.volumes == {"used", "old", "deep"}
    assert {name: content(share / name) for name in ("old", "team/deep")} == {
        name: before[name] for name in ("old", "team/deep")
    }
    assert site.intents == []
    gone = site.plan("purge", names=["older"], allow_now=True)
    removed = site.on_server("purged", _plan.ids(gone)[HOST]["purged"], allow_purge_now=True)
    assert not removed["msg"], removed
    assert site.manifests == {}
    assert tree(share / "used") == around


@pytest.mark.parametrize("until", range(4))
def test_a_run_that_ended_anywhere_is_finished_or_taken_back_by_the_next(until: int, site: Site) -> None:
    before = {name: content(site.world.share / name) for name in ("old", "older")}
    site.clean_up(site.plan("cleanup", parents=parents(site)), until=until)
    for name, what in before.items():
        # In its place, with its object or an intent that holds it; or in quarantine.
        place = site.world.share / name
        assert content(place if place.exists() else site.manifests[name]) == what
        assert name in site.volumes or site.manifests.get(name) or any(one.startswith(name) for one in site.intents)
    for _run in range(2):
        site.clean_up(site.plan("cleanup", parents=parents(site)))
    assert site.volumes == {"used"}
    assert site.intents == []
    assert set(site.manifests) == {"old", "older", "deep"}
    assert {name: content(site.manifests[name]) for name in before} == before


@pytest.mark.parametrize("until", range(3))
def test_so_is_a_return(until: int, site: Site) -> None:
    before = content(site.world.share / "old")
    site.clean_up(site.plan("cleanup", parents=parents(site)))
    site.undelete(site.plan("undelete", parents=parents(site), names=["old"]), until=until)
    if until < 2:
        site.undelete(site.plan("undelete", parents=parents(site), names=["old"]))
    assert "old" in site.volumes
    assert content(site.world.share / "old") == before
    assert site.intents == []
    assert site.plan("cleanup", parents=parents(site))["steps"] == []


def test_a_volume_that_stays_keeps_its_directory_and_loses_its_intent(site: Site) -> None:
    plan = site.plan("cleanup", parents=parents(site))

    def bind(key: Key) -> None:
        if key[2] == "old":
            site.cluster.change(key[0], key[2], {"status": {"phase": "Bound"}})

    site.cluster.before_delete = bind
    site.clean_up(plan)
    assert site.volumes == {"used", "old"}
    assert set(site.manifests) == {"older", "deep"}
    assert (site.world.share / "old/file").exists()
    assert site.intents == []


def test_a_volume_whose_end_nobody_saw_is_left_to_the_next_run(site: Site) -> None:
    plan = site.plan("cleanup", parents=parents(site))
    site.cluster.controller = lambda _key: None  # nobody takes the finalizer away
    site.clean_up(plan)
    assert site.volumes == {"used", "old", "older", "deep"}
    assert site.manifests == {}
    assert len(site.intents) == 3
    controllers(site.cluster)
    for name in ("old", "older", "deep"):
        site.cluster.change("persistentvolumes", name, {"metadata": {"labels": {"touched": "yes"}}})
    assert site.volumes == {"used"}
    site.clean_up(site.plan("cleanup", parents=parents(site)))
    assert set(site.manifests) == {"old", "older", "deep"}
    assert site.intents == []


def test_a_volume_whose_directory_is_really_not_there_goes_and_what_lies_on_the_disk_stays(site: Site) -> None:
    share = site.world.share
    for name in ("lost", "linked", "swapped"):
        site.volume(name)
        (share / name).rename(site.folder / name)
    (share / "linked").symlink_to("neighbour")
    (share / "swapped").write_text("a file")
    site.volume("put-away", "team/put-away")
    (share / "team/put-away").rename(share / "put-away")
    given: dict[str, Any] = {"missing": True, "exclude": ["old*", "deep"], "parents": parents(site)}
    before = tree(share, share / ".clusterkit")
    # Not mounted: what clients would see then is an empty directory.
    share.rename(site.folder / "disk-away")
    share.mkdir()
    assert site.plan("cleanup", **given)["steps"] == []
    share.rmdir()
    (site.folder / "disk-away").rename(share)
    plan = site.plan("cleanup", **given)
    assert [(step["item"], step["module"]) for step in plan["steps"]] == [("lost", "pv_cleanup")]
    told = {one["item"]: one["reason"] for one in plan["refusals"]}
    assert set(told) == {"linked", "swapped", "put-away"}, told
    site.clean_up(plan)
    assert site.volumes == {"used", "old", "older", "deep", "linked", "swapped", "put-away"}
    assert tree(share, share / ".clusterkit") == before
    assert (site.manifests, site.intents) == ({}, [])
    again = site.plan("cleanup", **given)
    assert again["steps"] == []


def test_orphans_and_archives_go_without_a_volume_and_come_back(site: Site) -> None:
    for name in ("nobody", "archived-x"):
        site.world.volume(name)
    given: dict[str, Any] = {"orphans": True, "archives": True, "names": ["nobody", "archived-*"], "released_for": "1d"}
    more: dict[str, Any] = {"mounts": str(site.folder / "mounts.jsonl"), "parents": parents(site)}
    assert site.plan("cleanup", **given, **more)["steps"] == [], "they were made a moment ago"
    plan = site.plan("cleanup", later=True, **given, **more)
    assert {Path(step["item"]).name for step in plan["steps"]} == {"nobody", "archived-x"}
    before = content(site.world.share / "nobody")
    site.clean_up(plan)
    assert set(site.manifests) == {"nobody", "archived-x"}
    assert site.volumes == {"used", "old", "older", "deep"}
    site.undelete(site.plan("undelete", names=["*/nobody"]))
    assert content(site.world.share / "nobody") == before
