# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever became of a backup or a restore, each volume and each stopped workload has its line at the end."""

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_summary, _shares

WEB = {"kind": "Deployment", "namespace": "shop", "name": "web"}


def step(number: int, *workloads: dict[str, Any], **more: Any) -> dict[str, Any]:
    name = f"pv-{number}"
    volume = {"namespace": "shop", "name": name, "claim": f"data-{number}", "server_dir": f"/srv/{name}"}
    return {
        "id": f"0000{number}", "item": f"shop/data-{number}", "host": "nfs1", "volume": volume,
        "workloads": list(workloads), **more,
    }  # fmt: skip


def plan(*steps: dict[str, Any], refusals: Any = ()) -> dict[str, Any]:
    return {"steps": list(steps), "refusals": list(refusals)}


def copied(number: int, **more: Any) -> dict[str, Any]:
    return {
        "namespace": "shop", "name": f"pv-{number}", "server_dir": f"/srv/pv-{number}", "failed": False, "msg": "",
        "generation": "20260301T000000Z", "files": 3, "bytes": 2048, "changed_files": 1, "copied_bytes": 1024,
        "vanished": 0, "snapshot": "none", "snapshot_reason": "", "removed": [], "seconds": 1.25,
        "quarantined": "", **more,
    }  # fmt: skip


def scaled(state: str, **more: Any) -> dict[str, Any]:
    return {"workloads": [{**WEB, "state": state, "replicas": 2, "reason": "", **more}]}


def backup(found: dict[str, Any], *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    hosts = more.pop("hosts", {"nfs1": {"volumes": list(items)}})
    return _backup_summary.backup({"plan": found, "hosts": hosts, "check_mode": False, **more})


def test_a_line_for_each_volume_of_a_backup() -> None:
    ill = copied(2, failed=True, msg="disk is full", generation="")
    rich = copied(3, vanished=2, removed=["20260101T000000Z"])
    told = backup(
        plan(step(1), step(2), step(3), refusals=[{"item": "x", "reason": "is no NFS volume"}]), copied(1), ill, rich
    )
    assert told["lines"] == [
        "shop/data-1: generation 20260301T000000Z, 3 files, 2.0 KiB, 1 changed, 1.0 KiB stored, 1.2 s",
        "FAILED shop/data-2: disk is full",
        "shop/data-3: generation 20260301T000000Z, 3 files, 2.0 KiB, 1 changed, 1.0 KiB stored, 1.2 s, 2 vanished "
        "meanwhile, removed 20260101T000000Z",
        "FAILED x: is no NFS volume",
    ]
    assert told["wrong"] == ["shop/data-2: disk is full", "x: is no NFS volume"]
    assert [one["state"] for one in told["results"]] == ["done", "failed", "done"]
    for more, words in (
        ({"snapshot": "lvm"}, "from a snapshot (lvm)"),
        ({"snapshot_reason": "/srv is neither"}, "without a snapshot: /srv is neither"),
    ):
        assert backup(plan(step(1)), copied(1, **more))["lines"][0].endswith(f"1.2 s, {words}")
    (line,) = backup(plan(step(1)), copied(1), check_mode=True)["lines"]
    assert line == "shop/data-1: would copy 1.0 KiB of 3 files"


def test_hosts_that_say_nothing_and_what_concerns_no_single_volume() -> None:
    assert backup(plan(step(1)), hosts={"nfs1": {"msg": "unreachable"}})["wrong"] == ["shop/data-1: nfs1: unreachable"]
    assert backup(plan(step(1)), hosts={})["wrong"] == ["shop/data-1: nfs1: no answer"]
    hosts = {"nfs1": {"volumes": [copied(1)], "problems": ["retention: locked"]}}
    assert backup(plan(step(1)), hosts=hosts)["wrong"] == ["nfs1: retention: locked"]
    known = {"nfs1": {"volumes": [copied(1, failed=True, msg="full")], "problems": ["shop/pv-1: full"]}}
    assert backup(plan(step(1)), hosts=known)["wrong"] == ["shop/data-1: full"]


def test_stopped_workloads_are_told_until_they_run_again() -> None:
    found = plan(step(1, WEB))
    stopped = {**scaled("stopped"), "claims": []}
    assert _backup_summary.workloads(plan(step(1, WEB), step(2, WEB))) == [WEB]
    assert _backup_summary.claims(found) == [{"namespace": "shop", "name": "data-1"}]
    done = backup(found, copied(1), stopped=stopped, started=scaled("started"))
    assert done["lines"][-1] == "Deployment shop/web: started again with 2 replicas"
    taken = {**scaled("stopped", taken_over=True), "claims": []}
    assert backup(found, copied(1), stopped=taken, started=scaled("started"))["lines"][-1].endswith(
        "2 replicas, which an earlier run had stopped"
    )
    for started, words in (({}, "no answer of the API"), (scaled("failed", reason="forbidden"), "forbidden")):
        told = backup(found, copied(1), stopped=stopped, started=started)
        assert told["wrong"] == [f"Deployment shop/web: is still stopped: {words}"]
    gone = backup(found, copied(1), stopped=stopped, started=scaled("gone", reason="does not exist any more"))
    assert (gone["wrong"], gone["lines"][-1]) == ([], "Deployment shop/web: gone: does not exist any more")
    tried = backup(found, copied(1), stopped=stopped, started=scaled("unchanged"), check_mode=True)
    assert tried["lines"][-1] == "Deployment shop/web: would be stopped and started again"
    idle = backup(found, copied(1), stopped={**scaled("unchanged"), "claims": []}, started=scaled("unchanged"))
    assert len(idle["lines"]) == 1


def test_volumes_whose_users_cannot_be_stopped_are_left_alone() -> None:
    found = plan(step(1, WEB), step(2))
    mounted = {**scaled("stopped"), "claims": [{"namespace": "shop", "name": "data-1", "pods": ["shop/web-1"]}]}
    for stopped, words in (
        ({}, "Deployment shop/web was not stopped: no answer"),
        ({**scaled("failed", reason="forbidden"), "claims": []}, "Deployment shop/web cannot be stopped: forbidden"),
        (mounted, "shop/web-1 did not end in time"),
    ):
        assert _backup_summary.ready(found, {"stopped": stopped}) == ["00002"]
        told = backup(found, copied(2), stopped=stopped, started=scaled("started"))
        assert told["wrong"][0] == f"shop/data-1: {words}"
    assert _backup_summary.volumes(found, "nfs1", ["00002"]) == [found["steps"][1]["volume"]]
    assert _backup_summary.volumes(found, "nfs2", ["00002"]) == []


def restoring(number: int, **more: Any) -> dict[str, Any]:
    name = f"data-{number}"
    return step(
        number, claim={"namespace": "shop", "name": name, "volume": f"pv-{number}"}, objects={"claim": {}},
        policy="Retain", precondition={"generation": "g"}, **more,
    )  # fmt: skip


def restore(found: dict[str, Any], *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    ready = {"steps": [{"id": one["id"], "state": "ready", "reason": ""} for one in found["steps"]]}
    told = {"plan": found, "hosts": {"nfs1": {"volumes": list(items)}}, "check_mode": False, "checked": ready, **more}
    return _backup_summary.restore(told)


def test_a_line_for_each_volume_of_a_restore() -> None:
    found = plan(restoring(1))
    bound = {"steps": [{"id": "00001", "state": "bound", "reason": ""}]}
    (line,) = restore(found, copied(1, quarantined="/srv/.clusterkit/trash/x"), bound=bound)["lines"]
    assert line == (
        "shop/data-1: restored and verified generation 20260301T000000Z, 3 files, 2.0 KiB, what was there is in "
        "/srv/.clusterkit/trash/x, shop/data-1 has volume pv-1"
    )
    assert "would restore" in restore(found, copied(1), bound=bound, check_mode=True)["lines"][0]
    late = {"steps": [{"id": "00001", "state": "failed", "reason": "not bound in time"}]}
    assert restore(found, copied(1), bound=late)["wrong"][0].endswith("2.0 KiB; not bound in time")
    assert restore(found, copied(1), bound={"msg": "API away"})["wrong"][0].endswith("; API away")
    assert restore(found, copied(1))["wrong"][0].endswith("; its objects were not made")
    claimless = restoring(1)
    claimless.update(claim={"namespace": "", "name": "", "volume": "pv-1"}, objects={})
    assert restore(plan(claimless), copied(1))["lines"][0].endswith("3 files, 2.0 KiB")


def test_only_what_is_as_planned_and_in_its_place_goes_on() -> None:
    found = plan(restoring(1), restoring(2), restoring(3))
    states = [("00001", "ready", ""), ("00002", "stale", "pv-2 is gone")]
    checked = {"steps": [{"id": number, "state": state, "reason": reason} for number, state, reason in states]}
    assert _backup_summary.ready(found, {"checked": checked}) == ["00001"]
    assert _backup_summary.ready(found, {"checked": {"msg": "API away"}}) == []
    told = restore(
        found, copied(1), checked=checked, bound={"steps": [{"id": "00001", "state": "bound", "reason": ""}]}
    )
    assert told["wrong"] == ["shop/data-2: pv-2 is gone (stale)", "shop/data-3: no answer of the API (failed)"]
    hosts = {"nfs1": {"volumes": [copied(1), copied(2, failed=True, msg="x")]}}
    assert _backup_summary.restored(found, hosts, ["00001", "00002", "00003"]) == ["00001"]
    (given,) = _backup_summary.objects(found, ["00001"])
    assert set(given) == {"id", "item", "claim", "objects", "policy", "precondition"}
    assert len(_backup_summary.objects(found)) == 3


def test_what_other_runs_have_left_behind_is_named() -> None:
    left = [{**WEB, "stopped": {"at": "2026-03-01T00:00:00Z", "run": "r", "replicas": 3}}]
    assert _backup_summary.left(left, [WEB]) == []
    assert _backup_summary.left(left, []) == [
        "Deployment shop/web: has been stopped since 2026-03-01T00:00:00Z by run r, and had 3 replicas"
    ]


def test_servers_are_found_by_what_they_export() -> None:
    exports = [
        {"path": "/srv", "options": ["rw", "fsid=0"]},
        {"path": "/srv/a/", "options": ["rw"]},
        {"path": "/srv/a", "options": ["ro"]},
    ]
    facts = {"ansible_all_ipv4_addresses": ["192.0.2.10", "127.0.0.1"], "other": 1}
    told: dict[str, dict[str, Any]] = {
        "nfs1": {"address": "nfs1.example.com", "facts": facts, "exports": exports},
        "nfs2": {"exports": None},
    }
    (found,) = _shares.found_servers(told)
    assert (found["name"], found["host"]) == ("nfs1", "nfs1")
    assert found["addresses"] == ["nfs1", "nfs1.example.com", "192.0.2.10"]
    assert [(one["server_path"], one["client_path"]) for one in found["shares"]] == [
        ("/srv", "/srv"), ("/srv/a", "/srv/a"), ("/srv", "/"), ("/srv/a", "/a"),
    ]  # fmt: skip
