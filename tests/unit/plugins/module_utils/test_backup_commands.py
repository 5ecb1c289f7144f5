# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands around a backup: in which pod they are run, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup_plan,
    _backup_summary,
    _pod_exec,
    _workloads,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

SERVERS = [
    {
        "name": "nfs1",
        "host": "nfs1",
        "addresses": ["192.0.2.10"],
        "shares": [{"server_path": "/srv", "client_path": "/nfs"}],
    }
]
FREEZE: dict[str, Any] = {
    "claim": "shop/*", "container": None, "before": ["freeze"], "after": ["thaw"], "timeout": 60,
}  # fmt: skip


def volume(name: str) -> Volume:
    return Volume.of({
        "metadata": {"name": f"pv-{name}", "uid": f"u-{name}", "resourceVersion": "7"},
        "spec": {
            "nfs": {"server": "192.0.2.10", "path": f"/nfs/{name}"},
            "claimRef": {"namespace": "shop", "name": name, "uid": "c"},
        },
        "status": {"phase": "Bound"},
    })  # fmt: skip


def pod(name: str, claim: str = "data", *, volumes: Any = None, mounts: Any = None, **more: Any) -> dict[str, Any]:
    item = {
        "metadata": {"namespace": "shop", "name": name, "uid": f"u-{name}", **more.pop("metadata", {})},
        "spec": {
            "volumes": volumes or [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [
                {"name": "sidecar"},
                {"name": "db", "volumeMounts": mounts or [{"name": "v", "mountPath": "/data"}]},
            ],
        },
        "status": {"phase": "Running"},
        **more,
    }
    found = _workloads.user_record(item)
    assert found
    return found


def planned(*pods: dict[str, Any], claims: tuple[str, ...] = ("data",), **given: Any) -> dict[str, Any]:
    listing = Listing([volume(one) for one in claims], "cluster", False, "now", 1, pods=list(pods))
    defaults = {name: one.get("default") for name, one in _backup_plan.ARGUMENTS.items()}
    request = {**defaults, "storage_servers": SERVERS, "commands": [FREEZE], **given}
    return _backup_plan.plan(listing, request, "localhost")


def where(*pods: dict[str, Any], **given: Any) -> list[tuple[str, str]]:
    return [(one["pod"], one["container"]) for one in _backup_summary.commands(planned(*pods, **given))]


def test_they_are_run_in_the_first_running_pod_that_may_write() -> None:
    ending = pod("a", metadata={"deletionTimestamp": "2026-03-01T12:00:00Z"})
    pending = pod("b", status={"phase": "Pending"})
    read_only = [{"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}]
    readers = [pod("c", volumes=read_only), pod("d", mounts=[{"name": "v", "mountPath": "/d", "readOnly": True}])]
    others = [pod("e", "other"), pending, *readers]
    assert where(*others) == []
    assert where(*others, ending) == [("a", "db")]
    assert where(*others, ending, pod("z"), pod("y")) == [("y", "db")]
    assert where(pod("z"), commands=[{**FREEZE, "container": "sidecar"}]) == [("z", "sidecar")]
    # A volume that is made for a pod has a claim of its name.
    own = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]
    assert where(pod("x", volumes=own), claims=("x-v",)) == [("x", "db")]
    # Who is stopped runs nothing.
    workload = {"kind": "Deployment", "name": "web"}
    owned = {**pod("z"), "owner": workload}
    listing = Listing([volume("data")], "cluster", False, "now", 1, pods=[owned])
    listing.workloads = [{**workload, "namespace": "shop", "replicas": 1, "stopped": None, "claims": ["data"],
                          "claim_prefixes": []}]  # fmt: skip
    defaults = {name: one.get("default") for name, one in _backup_plan.ARGUMENTS.items()}
    request = {**defaults, "storage_servers": SERVERS, "commands": [FREEZE], "scale": True}
    (step,) = _backup_plan.plan(listing, request, "localhost")["steps"]
    assert (step["commands"], step["reason"]) == ([], "Deployment web stopped meanwhile")


def test_the_plan_says_it_and_one_pod_is_asked_once() -> None:
    volumes = [
        {"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in (("v", "data"), ("w", "log"))
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in "vw"]
    plan = planned(pod("db-0", volumes=volumes, mounts=mounts), claims=("data", "log"))
    assert [step["reason"] for step in plan["steps"]] == ["commands before and after in pod db-0, container db"] * 2
    assert _backup_summary.commands(plan) == [
        {"namespace": "shop", "pod": "db-0", "uid": "u-db-0", "container": "db", "before": ["freeze"],
         "after": ["thaw"], "timeout": 60},
    ]  # fmt: skip
    only = [{**FREEZE, "claim": "shop/log", "before": []}, {**FREEZE, "claim": "*/*", "after": []}]
    steps = planned(pod("db-0", volumes=volumes, mounts=mounts), claims=("data", "log"), commands=only)["steps"]
    assert [step["reason"].split(" in pod")[0] for step in steps] == ["commands before", "commands after"]


def test_what_makes_no_sense_is_refused() -> None:
    (refusal,) = planned(pod("z"), commands=[{**FREEZE, "container": "nobody"}])["refusals"]
    assert refusal["reason"] == "pod shop/z has no container 'nobody' in which to run a command"
    for wrong, words in (
        ({"claim": "data"}, r"commands\[0\].claim: 'data' is not of the form namespace/name"),
        ({"before": [], "after": []}, r"commands\[0\]: says neither before nor after"),
        ({"timeout": 0}, r"commands\[0\].timeout: 0 is less than 1"),
    ):
        with pytest.raises(ValueError, match=words):
            planned(commands=[{**FREEZE, **wrong}])


# --- the summary -------------------------------------------------------------------------------------------

NAME = "pod shop/db-0, container db"


def result(**more: Any) -> dict[str, Any]:
    item = {
        "namespace": "shop", "name": "pv-data", "server_dir": "/srv/data", "failed": False, "msg": "",
        "generation": "20260301T000000Z", "files": 3, "bytes": 2048, "changed_files": 1, "copied_bytes": 1024,
        "vanished": 0, "snapshot": "none", "snapshot_reason": "", "removed": [], "seconds": 1.25, **more,
    }  # fmt: skip
    return {"nfs1": {"volumes": [item]}}


def told(state: str, reason: str = "", **more: Any) -> dict[str, Any]:
    (command,) = _backup_summary.commands(planned(pod("db-0")))
    return {"commands": [{**command, "state": state, "reason": reason, "taken_over": False, **more}]}


def summary(begun: Any, ended: Any, *, check_mode: bool = False, **copied: Any) -> dict[str, Any]:
    plan = planned(pod("db-0"), **copied.pop("given", {}))
    ready = _backup_summary.ready(plan, {"begun": begun})
    hosts = result(**copied) if ready else {}
    found = {"plan": plan, "begun": begun, "ended": ended, "hosts": hosts, "check_mode": check_mode}
    return _backup_summary.backup(found)


def test_what_was_run_is_said() -> None:
    assert summary(told("begun"), told("ended"))["lines"][1:] == [f"{NAME}: commands before and after were run"]
    again = summary(told("begun", taken_over=True), told("ended"))["lines"][1]
    assert again == f"{NAME}: commands before and after were run; an earlier run had left its own"
    tried = summary(told("begun"), told("ended"), check_mode=True)["lines"][1]
    assert tried == f"{NAME}: commands before and after would be run"
    failed = summary(told("begun"), told("ended"), failed=True, msg="disk is full")
    assert failed["wrong"] == ["shop/data (pv-data): disk is full"]


@pytest.mark.parametrize("state", ["failed", "lost"])
def test_a_volume_that_could_not_be_prepared_is_not_backed_up(state: str) -> None:
    found = summary(told(state, "before: exit status 7"), told("unchanged"))
    assert found["wrong"] == [f"shop/data (pv-data): {NAME}: before: exit status 7"]
    assert [one["state"] for one in found["results"]] == ["failed"]
    # And what follows it may fail as well.
    owed = summary(told(state, "before: exit status 7; after: exit status 8"), told("failed", "after: exit status 8"))
    assert owed["wrong"][1] == f"{NAME}: is owed its command after: after: exit status 8"
    away = summary({"msg": "API away"}, {})
    assert away["wrong"] == [f"shop/data (pv-data): {NAME}: no command was run: API away"]


def test_what_is_owed_or_lost_is_wrong() -> None:
    for ended, words in (
        (told("failed", "after: exit status 1"), "after: exit status 1"),
        ({}, "no answer of the API"),
    ):
        found = summary(told("begun"), ended)
        assert found["wrong"] == [f"{NAME}: is owed its command after: {words}"]
        assert [one["state"] for one in found["results"]] == ["done"]
    found = summary(told("begun"), told("lost", "the pod is gone"))
    assert found["wrong"][0].endswith(f"1.2 s; but what was prepared in {NAME} did not last: the pod is gone")
    assert [one["state"] for one in found["results"]] == ["failed"]


def test_what_killed_runs_owe_is_named_unless_this_run_deals_with_it() -> None:
    (command,) = _backup_summary.commands(planned(pod("db-0")))
    owed = {**command, "run": "killed", "at": "2026-03-01T02:00:00Z"}
    (line,) = _backup_summary.left([owed], [])
    assert line == f"{NAME}: is owed a command since 2026-03-01T02:00:00Z by run killed: thaw"
    assert _backup_summary.left([owed], [command]) == []
    assert set(_pod_exec.COMMAND) == set(command)
