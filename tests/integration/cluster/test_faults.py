# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of volumes in spite of everything: rivals, faults of the API, a run that is killed."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import Any

import pytest

from .cluster import Cluster
from .proxy import proxied

RIGHTS = [
    {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "patch", "watch"]},
    {"apiGroups": [""], "resources": ["namespaces", "persistentvolumeclaims", "pods"], "verbs": ["get", "list"]},
]


def names(count: int) -> list[str]:
    return [f"pv-{number:05d}" for number in range(count)]


def states(result: dict[str, Any]) -> dict[str, int]:
    assert "summary" in result, result
    return {state: count for state, count in result["summary"].items() if count}


@pytest.mark.parametrize(
    ("count", "rate"), [(1000, 0.01), pytest.param(1000, 0.3, marks=pytest.mark.long)], ids=["1%", "30%"]
)
def test_faults_of_the_api_lose_nothing_and_do_nothing_twice(empty: Cluster, count: int, rate: float) -> None:
    empty.make_released(names(count))
    account = empty.service_account("reclaimer", RIGHTS)
    with proxied(empty, rate) as proxy:
        config = empty.kubeconfig_with(account["users"][0]["user"], proxy.port)
        request: dict[str, Any] = {"policy": "Retain", "release": "reserved", "labels": {"run": "one"}}
        result = empty.direct("pv_reclaim", kubeconfig=config, selection={"names": ["pv-*"]}, **request)
        assert states(result) == {"changed": count}, (result.get("msg"), proxy.met)
        assert sum(proxy.met.values()) > count * rate / 3, proxy.met
        assert max(proxy.effects.values()) == 1, "a change was made twice"
        assert len(proxy.effects) == count
    for one in empty.volumes().values():
        assert one["metadata"]["labels"] == {"run": "one"}
        assert "uid" not in one["spec"]["claimRef"]


def test_what_cannot_be_done_is_listed_with_its_reason(empty: Cluster) -> None:
    empty.make_released(names(20))
    account = empty.service_account("reclaimer", RIGHTS)
    with proxied(empty, 1.0, faults=("unavailable",), methods=("PATCH",)) as proxy:
        config = empty.kubeconfig_with(account["users"][0]["user"], proxy.port)
        request: dict[str, Any] = {"selection": {"names": ["pv-*"]}, "release": "open"}
        result = empty.direct("pv_reclaim", kubeconfig=config, retry_timeout=1, **request)
    assert result["failed"]
    assert states(result) == {"failed": 20}
    assert [one["name"] for one in result["volumes"]] == names(20)
    assert all("503 not now" in one["reason"] for one in result["volumes"])
    assert "20 of 20 volumes are not as asked for" in result["msg"]
    assert states(empty.direct("pv_reclaim", **request)) == {"changed": 20}


def test_somebody_who_changes_the_same_volumes_all_the_time(empty: Cluster) -> None:
    count = 60
    empty.make_released(names(count))
    stop = threading.Event()
    last: dict[str, str] = {}

    def rival() -> None:
        chance = random.Random(1)  # noqa: S311 (no secret)
        while not stop.is_set():
            name = chance.choice(names(count))
            value = str(chance.random())
            empty.patch(
                f"/api/v1/persistentvolumes/{name}", {"metadata": {"annotations": {"example.com/rival": value}}}
            )
            last[name] = value

    thread = threading.Thread(target=rival)
    thread.start()
    try:
        result = empty.direct("pv_reclaim", selection={"names": ["pv-*"]}, release="reserved")
    finally:
        stop.set()
        thread.join()
    assert states(result) == {"changed": count}
    assert last
    for name, one in empty.volumes().items():
        assert "uid" not in one["spec"]["claimRef"]
        if name in last:
            assert one["metadata"]["annotations"]["example.com/rival"] == last[name], "the other's change was lost"


def test_two_runs_at_once_end_in_what_one_of_them_wants(empty: Cluster) -> None:
    count = 200
    empty.make_released(names(count))
    wanted: list[dict[str, Any]] = [
        {"release": "open", "labels": {"by": "a"}},
        {"release": "reserved", "labels": {"by": "b"}},
    ]
    runs = [empty.start("pv_reclaim", selection={"names": ["pv-*"]}, **one) for one in wanted]
    for run in runs:
        output, errors = run.communicate(timeout=120)
        assert run.returncode == 0, output + errors
    for one in empty.volumes().values():
        by, claim = one["metadata"]["labels"]["by"], one["spec"].get("claimRef")
        # Who comes second may open what is reserved, but cannot reserve what is open.
        assert (claim is None) or (by == "b" and "uid" not in claim), one
        assert one["status"]["phase"] in ("Available", "Released")


@pytest.mark.parametrize("count", [1000, pytest.param(10000, marks=pytest.mark.long)])
def test_a_killed_run_leaves_nothing_half_done_and_the_next_one_finishes(empty: Cluster, count: int) -> None:
    empty.make_released(names(count))
    request: dict[str, Any] = {"selection": {"names": ["pv-*"]}, "release": "reserved", "labels": {"run": "one"}}
    account = empty.service_account("reclaimer", RIGHTS)
    # An API that takes half a second for each change leaves the time to kill the run in the middle.
    with proxied(empty, 1.0, faults=("slow",), methods=("PATCH",)) as proxy:
        config = empty.kubeconfig_with(account["users"][0]["user"], proxy.port)
        run = empty.start("pv_reclaim", kubeconfig=config, **request)
        empty.wait(lambda: len(proxy.effects) >= count // 10, 120)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        time.sleep(2)  # what was on its way to the API server arrives
    done = 0
    for one in empty.volumes().values():
        parts = {
            "labels" in one["metadata"],
            "uid" not in one["spec"]["claimRef"],
            "pv.kubernetes.io/bound-by-controller" not in (one["metadata"].get("annotations") or {}),
        }
        assert len(parts) == 1, one
        done += parts == {True}
    assert 0 < done < count, "killed too early or too late to tell"
    result = empty.direct("pv_reclaim", **request)
    assert states(result) == {"changed": count - done, "unchanged": done}


def test_a_hundred_claims_race_for_released_volumes(empty: Cluster) -> None:
    count = 100
    empty.make_released(names(count), storage_class="race")
    for number in range(count):
        empty.make_claim(f"racer-{number:03d}", storage_class="race")
    result = empty.direct(
        "pv_reclaim", selection={"storage_classes": ["race"]}, release="open", wait=True, wait_phase="Bound"
    )
    assert states(result) == {"changed": count}, result.get("msg")
    path = "/api/v1/namespaces/default/persistentvolumeclaims"
    taken = {
        one["spec"]["volumeName"]: one["metadata"]["uid"]
        for one in empty.done("GET", path)["items"]
        if one["status"]["phase"] == "Bound"
    }
    assert len(taken) == count, "each claim has a volume of its own"
    for name, one in empty.volumes().items():
        assert one["spec"]["claimRef"]["uid"] == taken[name]
