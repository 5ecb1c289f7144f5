# SPDX-License-Identifier: GPL-3.0-or-later
"""What was begun in a pod is ended, whoever fails or is killed in between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _api_exec, _pod_exec
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api, Patience
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import Access
from ansible_collections.clusterkit.storage.plugins.module_utils._pod_exec import OWED, NotAllError
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from kubernetes.client import Configuration

DB = {"namespace": "shop", "pod": "db-0", "uid": "u-db"}


@pytest.fixture(autouse=True)
def database(cluster: Cluster) -> None:
    add(cluster)


def add(cluster: Cluster, **more: Any) -> None:
    given = {
        "uid": "u-db",
        "spec": {"containers": [{"name": "sidecar"}, {"name": "db"}]},
        "status": {"containerStatuses": [{"name": "db", "containerID": "containerd://1"}]},
        **more,
    }
    cluster.add("pods", "db-0", "shop", **given)


class Log:
    """What ran, in its order."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"

    def says(self, word: str, then: str = "true") -> list[str]:
        return ["sh", "-c", f"echo {word} >> '{self._path}'; {then}"]

    def command(self, before: str = "true", after: str = "true", **more: Any) -> dict[str, Any]:
        return {**DB, "container": "db", "before": self.says("before", before), "after": self.says("after", after),
                "timeout": 20, **more}  # fmt: skip

    @property
    def words(self) -> list[str]:
        return self._path.read_text().split() if self._path.exists() else []


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def run(api: Api, state: str, *commands: Mapping[str, Any], name: str | None = "one") -> list[dict[str, Any]]:
    given = {"state": state, "commands": list(commands) or None, "run": name}
    found: list[dict[str, Any]] = _pod_exec.carry_out(api, given)["commands"]
    return found


def failed(api: Api, state: str, *commands: Mapping[str, Any], name: str | None = "one") -> list[dict[str, Any]]:
    with pytest.raises(NotAllError) as told:
        run(api, state, *commands, name=name)
    found: list[dict[str, Any]] = told.value.result["commands"]
    assert all(one["reason"] in str(told.value) for one in found if one["state"] in ("failed", "lost"))
    return found


def notes(cluster: Cluster) -> list[tuple[str, str]]:
    found = cluster.get("pods", "db-0", "shop")["metadata"].get("annotations") or {}
    return [(one["run"], one["container"]) for one in json.loads(found.get(OWED, "[]"))]


def test_before_and_after_with_a_note_in_between(cluster: Cluster, log: Log) -> None:
    api, command = client(cluster), log.command()
    assert run(client(cluster, dry_run=True), "begun", command)[0]["state"] == "begun"
    assert (log.words, notes(cluster)) == ([], [])
    assert run(api, "begun", command) == [{**command, "state": "begun", "reason": "", "taken_over": False}]
    assert (log.words, notes(cluster)) == (["before"], [("one", "db")])
    # What was done is not done again.
    assert run(api, "begun", command)[0]["state"] == "unchanged"
    assert run(client(cluster, dry_run=True), "ended", command)[0]["state"] == "ended"
    assert (log.words, notes(cluster)) == (["before"], [("one", "db")])
    assert run(api, "ended", command)[0]["state"] == "ended"
    assert (log.words, notes(cluster)) == (["before", "after"], [])
    assert run(api, "ended", command)[0]["state"] == "unchanged"
    assert log.words == ["before", "after"]


def test_the_note_is_there_before_the_command_runs(cluster: Cluster, log: Log) -> None:
    """Else a run that is killed while it runs leaves nothing behind."""
    seen: list[int] = []

    def fate(_method: str, path: str) -> str:
        if "/exec" in path:
            seen.append(len(notes(cluster)))
        return ""

    cluster.fate = fate
    run(client(cluster), "begun", log.command())
    assert seen == [1]


def test_a_command_before_that_fails_is_followed_by_the_one_after(cluster: Cluster, log: Log) -> None:
    (told,) = failed(client(cluster), "begun", log.command(before="echo no room >&2; exit 7"))
    assert (told["state"], told["reason"]) == ("failed", "before: exit status 7: no room")
    assert (log.words, notes(cluster)) == (["before", "after"], [])
    # If that fails as well, it stays owed.
    (told,) = failed(client(cluster), "begun", log.command(before="exit 7", after="exit 8"))
    assert told["reason"] == "before: exit status 7; after: exit status 8"
    assert notes(cluster) == [("one", "db")]


def test_what_a_killed_run_has_left_is_made_up_for(cluster: Cluster, log: Log) -> None:
    api = client(cluster)
    run(api, "begun", log.command(), name="killed")
    (told,) = run(api, "begun", log.command(), name="next")
    assert (told["state"], told["taken_over"]) == ("begun", True)
    assert (log.words, notes(cluster)) == (["before", "after", "before"], [("next", "db")])
    # The first one, if it was alive after all, does not end what it has not begun.
    assert run(api, "ended", log.command(), name="killed")[0]["state"] == "unchanged"
    (listed,) = run(api, "listed", name=None)
    assert (listed["pod"], listed["run"], listed["after"]) == ("db-0", "next", log.says("after"))
    run(api, "ended", name=None)
    assert (log.words[3:], notes(cluster)) == (["after"], [])
    assert run(api, "listed", name=None) == []


def test_what_cannot_be_made_up_for_keeps_the_next_from_beginning(cluster: Cluster, log: Log) -> None:
    api = client(cluster)
    run(api, "begun", log.command(after="exit 3"), name="killed")
    (told,) = failed(api, "begun", log.command(), name="next")
    assert told["reason"] == "what run killed has left could not be ended: after: exit status 3"
    assert log.words == ["before", "after"]
    assert notes(cluster) == [("killed", "db")]


def test_a_command_after_that_fails_stays_owed(cluster: Cluster, log: Log) -> None:
    api, command = client(cluster), log.command(after="test -e /nowhere")
    run(api, "begun", command)
    (told,) = failed(api, "ended", command)
    assert (told["state"], told["reason"]) == ("failed", "after: exit status 1")
    assert notes(cluster) == [("one", "db")]


def test_a_command_that_does_not_end_in_time_has_failed(cluster: Cluster, log: Log) -> None:
    (told,) = failed(client(cluster), "begun", log.command(before="sleep 3", timeout=1))
    assert told["reason"] == "before: did not end within 1 s, and may still run"
    assert log.words == ["before", "after"]


def test_commands_without_a_partner(cluster: Cluster, log: Log) -> None:
    api = client(cluster)
    alone = {**log.command(), "after": []}
    assert run(api, "begun", alone)[0]["state"] == "begun"
    assert notes(cluster) == []
    assert run(api, "ended", alone)[0]["state"] == "unchanged"
    late = {**log.command(), "before": []}
    run(api, "begun", late)
    assert (log.words, notes(cluster)) == (["before"], [("one", "db")])
    run(api, "ended", late)
    assert log.words == ["before", "after"]


def test_several_in_one_pod_do_not_forget_one_another(cluster: Cluster, log: Log) -> None:
    api = client(cluster)
    cluster.patches_meet("conflict", "", "conflict")
    commands = [log.command(), {**log.command(), "container": "sidecar", "after": log.says("other")}]
    assert [one["state"] for one in run(api, "begun", *commands)] == ["begun", "begun"]
    assert notes(cluster) == [("one", "db"), ("one", "sidecar")]
    run(api, "ended", *commands)
    assert (log.words, notes(cluster)) == (["before", "before", "after", "other"], [])


def test_a_pod_or_container_that_is_another_one_by_now(cluster: Cluster, log: Log) -> None:
    api = client(cluster)
    run(api, "begun", log.command())
    status = {"status": {"containerStatuses": [{"name": "db", "containerID": "containerd://2"}]}}
    cluster.change("pods", "db-0", status, "shop")
    (told,) = failed(api, "ended", log.command())
    assert (told["state"], told["reason"]) == ("lost", "the container has begun anew since")
    assert (log.words, notes(cluster)) == (["before", "after"], [])
    cluster.remove("pods", "db-0", "shop")
    for state in ("begun", "ended"):
        (told,) = failed(api, state, log.command())
        assert (told["state"], told["reason"]) == ("lost", "the pod is gone")
    add(cluster, uid="u-other")
    (told,) = failed(api, "ended", log.command())
    assert (told["state"], told["reason"]) == ("lost", "another pod has taken its place")
    assert log.words == ["before", "after"]


@pytest.mark.parametrize(("fate", "runs"), [("unavailable", 1), ("error", 1), ("dropped", 1), ("lost", 2)])
def test_only_the_command_after_is_begun_once_more(cluster: Cluster, log: Log, fate: str, runs: int) -> None:
    """A server that is away for a moment must not leave a database that holds still."""
    api, left = client(cluster), [fate]
    run(api, "begun", log.command())
    cluster.fate = lambda _method, path: left.pop() if left and "/exec" in path else ""
    assert run(api, "ended", log.command())[0]["state"] == "ended"
    assert log.words == ["before", *["after"] * runs]
    left.append(fate)
    (told,) = failed(api, "begun", log.command())
    assert told["reason"].startswith('before: get pods/exec "db-0" in namespace "shop": ')
    assert log.words[1 + runs :] == ["before"] * (fate == "lost") + ["after"]
    assert notes(cluster) == []


def test_refusals_are_told_and_not_tried_again(cluster: Cluster, log: Log) -> None:
    cluster.fate = lambda _method, path: "forbidden" if "/exec" in path else ""
    (told,) = failed(client(cluster), "begun", log.command())
    assert "the role of this user needs verb get on pods/exec: RBAC says no" in told["reason"]
    cluster.calm()
    (told,) = failed(client(cluster), "begun", log.command(container="nobody"), name="two")
    assert "container is not valid for pod" in told["reason"]
    (told,) = failed(client(cluster), "begun", {**log.command(), "before": ["/no/such/program"]}, name="three")
    assert "No such file or directory" in told["reason"]


def test_whom_the_access_names_runs_the_command(cluster: Cluster, log: Log) -> None:
    configuration = Configuration()
    configuration.host, configuration.proxy = cluster.url, None
    headers = {"Impersonate-User": ["me"], "Impersonate-Group": ["a", "b"]}
    api = Api(Access.of(configuration, headers, set()), Patience(5, 5))
    run(api, "begun", log.command())
    (sent,) = cluster.headers
    assert (sent["Impersonate-User"], sent["Impersonate-Group"]) == (["me"], ["a", "b"])


def test_long_output_is_cut_for_the_message(cluster: Cluster, log: Log) -> None:
    (told,) = failed(client(cluster), "begun", log.command(before="seq 1 100000; exit 1"))
    assert told["reason"] == "before: exit status 1: 99998; 99999; 100000"


@pytest.mark.parametrize("told", [b"", b"{", b'{"status": "Succ'])
def test_an_end_that_was_not_told_is_no_good_end(told: bytes) -> None:
    with pytest.raises(OSError, match="before the command had told its end"):
        _api_exec.problem_of(told, b"")


@pytest.mark.parametrize("note", ["", "{", "[]", '[{"run": "x"}]', '[{"container": 1, "after": 2}]', "3"])
def test_notes_of_nobody_we_know(note: str) -> None:
    assert _pod_exec.owed({"annotations": {OWED: note}}) == []
