# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes from one host to the next: nothing that is not certain lets a volume be removed or a directory be moved."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.filter.directories import FilterModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _cleanup_summary

FILTERS = FilterModule().filters()


def step(number: str, item: str, state: str = "quarantined", host: str = "nfs1", volume: bool = True) -> dict[str, Any]:
    about = {"id": number, "item": item, "module": "volume_dirs", "state": state, "host": host}
    return {**about, "volume": {"name": item, "uid": "u"} if volume else None}


PLAN = {
    "steps": [
        step("1", "a"),
        {"id": "2", "item": "a", "module": "pv_cleanup", "state": "absent", "host": "api"},
        step("3", "b", host="nfs2"),
        {"id": "4", "item": "b", "module": "pv_cleanup", "state": "absent", "host": "api"},
        step("5", "/srv/x", volume=False),
        step("6", "left"),
        step("7", "there", state="closed"),
    ]
}


def told(*items: tuple[str, str], asked: tuple[str, ...] = ("1", "3")) -> dict[str, Any]:
    return {"asked": list(asked), "directories": [{"id": number, "state": state} for number, state in items]}


@pytest.mark.parametrize(
    ("results", "names"),
    [
        ({"nfs1": told(("1", "changed")), "nfs2": told(("3", "changed"))}, ["a", "b"]),
        ({"nfs1": told(), "nfs2": told(("3", "refused"))}, ["a"]),  # of what was unchanged nothing is told
        ({"nfs1": told(asked=()), "nfs2": {}}, []),
        ({"nfs1": {"failed": True, "msg": "lease", "asked": ["1"]}}, []),
        ({"nfs1": told(("1", "not_started"))}, []),
        ({}, []),
    ],
)
def test_only_volumes_whose_intent_is_certain_are_removed(results: dict[str, Any], names: list[str]) -> None:
    assert FILTERS["directories_done"](PLAN, results, "quarantined") == names


def test_a_host_is_asked_for_more_only_where_it_came_to_an_end() -> None:
    fine = FILTERS["directories_fine"]
    assert fine(told(("1", "changed"), ("3", "failed"), asked=("1", "2", "3"))) == ["1", "2"]
    assert fine(told(("7", "changed"), asked=())) == [], "of what nobody asked for nothing follows"
    for nothing in ({}, None, {"failed": True, "msg": "lease", "asked": ["1"]}):
        assert fine(nothing) == []


def test_only_directories_whose_volume_is_certainly_gone_are_moved() -> None:
    to_do = FILTERS["directories_to_do"]
    removed = {"directories": {"quarantined": {"nfs1": ["1"]}, "closed": {"nfs2": ["3"]}}}
    assert to_do(PLAN, removed, "nfs1", "quarantined") == ["5", "6", "1"]
    assert to_do(PLAN, removed, "nfs2", "quarantined") == []
    assert to_do(PLAN, removed, "nfs2", "closed") == ["3"]
    assert to_do(PLAN, removed, "nfs1", "closed") == ["7"]
    nothings: list[dict[str, Any]] = [{}, {"failed": True}, {"directories": {}}, {"directories": []}]
    for nothing in nothings:
        assert to_do(PLAN, nothing, "nfs1", "quarantined") == ["5", "6"]
    assert to_do(PLAN, {}, "nfs1", "quarantined", False) == ["1", "5", "6"]


def test_shares() -> None:
    servers = [
        {"name": "a", "host": "nfs1", "shares": [{"server_path": path} for path in ("/srv/x/", "/srv", "/srv/x")]},
        {"name": "nfs2", "shares": [{"server_path": "/"}]},
        {"name": "nfs3"},
    ]
    assert FILTERS["shares_of"](servers, "nfs1") == ["/srv", "/srv/x"]
    assert (FILTERS["shares_of"](servers, "nfs2"), FILTERS["shares_of"](servers, "nfs3")) == (["/"], [])
    uses = [{"host": "nfs1", "path": path} for path in ("/srv/x/v", "/srv/x", "/data")] + [
        {"host": "o", "path": "/srv"}
    ]
    assert FILTERS["shares_in_use"]({"storage_servers": servers, "uses": uses}, "nfs1") == ["/srv/x"]
    assert FILTERS["directories_listings"](["h"], "/f", "n") == [{"host": "h", "path": "/f/n-h.jsonl"}]


def test_mounts_and_problems() -> None:
    seen = {"n1": {"mounts": [{"source": "s:/a"}]}, "n2": {"msg": "unreachable"}, "n3": {}}
    lines = [json.loads(line) for line in FILTERS["directories_mounts"](seen).splitlines()]
    assert [(one["name"], one["problem"], one["sources"]) for one in lines] == [
        ("n1", "", ["s:/a"]),
        ("n2", "unreachable", []),
        ("n3", "no answer", []),
    ]
    results = {"h": {"closed": {"failed": True, "msg": "no"}, "purged": {}}, "i": {"purged": {"unreachable": True}}}
    assert FILTERS["directories_problems"](results) == ["h, closed: no", "i, purged: failed"]


def test_the_lease_is_taken_over_from_processes_of_this_controller_that_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = FILTERS["lease_owner"](None)
    assert owner["pid"] == os.getppid()
    assert owner["controller"]
    with subprocess.Popen(["true"]) as process:
        process.wait()

    def lease(**more: Any) -> dict[str, Any]:
        return {"lease": {"owner": {**owner, **more}}}

    shares = [
        lease(pid=process.pid),
        lease(pid=os.getpid()),
        lease(pid=process.pid, controller="another"),
        lease(pid=process.pid, boot_id="before"),
        {"lease": None},
        {"lease": {}},
    ]
    assert FILTERS["lease_dead_pids"](shares[:1], owner) == [process.pid]
    assert FILTERS["lease_dead_pids"](shares[1:], owner) == []

    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert FILTERS["lease_dead_pids"](shares, owner) == []
    monkeypatch.setattr(_cleanup_summary, "_text", lambda _path: "")
    assert FILTERS["lease_owner"]()["boot_id"] == "unknown"


def test_a_file_that_cannot_be_read_is_no_name() -> None:
    assert _cleanup_summary._text("/nonexistent") == ""
