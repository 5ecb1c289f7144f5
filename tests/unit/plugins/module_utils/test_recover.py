# SPDX-License-Identifier: GPL-3.0-or-later
"""After an outage nobody is hit who need not be; what is not done is named, with the reason."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _planner, _pods, _recover
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet, name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_facts import Host
from ansible_collections.clusterkit.storage.tests.outages import (
    LEAVING,
    NOW,
    OVER,
    SERVERS,
    cluster,
    host,
    mount,
    pod,
    uid,
)
from hypothesis import given
from hypothesis import strategies as st

WORDS = ("allow_restart_pods", "allow_abort_shared_io", "allow_force_delete")
ALL: dict[str, Any] = dict.fromkeys(WORDS, True)


def plan(hosts: Host | list[Host], pods: PodSet, **allowed: bool) -> dict[str, Any]:
    return _recover.plan(hosts if isinstance(hosts, list) else [hosts], pods, allowed)


def actions(made: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["action"], step["item"].rpartition("/")[2]) for step in made["steps"]]


def reasons(made: dict[str, Any]) -> str:
    return "\n".join(f"{one['item']}: {one['reason']}" for one in made["refusals"])


# Single decisions ----------------------------------------------------------------------------------------


def test_requests_are_aborted_where_nobody_else_shares_the_superblock() -> None:
    made = plan(host(mount(1, 1), mount(2, 2)), cluster(pod(1, deleting=OVER), pod(2, deleting=OVER)))
    assert actions(made) == [("abort", "v1"), ("abort", "v2")]
    assert made["steps"][0]["precondition"] == {"mount_id": 101, "major_minor": "0:50", "superblock": [101, 102]}
    assert made["steps"][0]["pods"] == [uid(1), uid(2)]
    assert made["steps"][0]["reason"] == (
        "the server 192.0.2.10 does not answer; it is mounted for pod shop/p1, Terminating since 2026-01-01T11:59:00Z; "
        "nobody else shares its superblock"
    )
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", True), ("p2", True)]
    assert made["refusals"] == []


def test_a_shared_superblock_is_left_to_the_server_and_its_sharers_are_named() -> None:
    found = host(mount(1, 1), mount(2, 2), mount(3), mount(4, 4, major_minor="0:51"))
    pods = cluster(pod(1, deleting=OVER), pod(2), pod(4, deleting=OVER))
    made = plan(found, pods)
    assert actions(made) == [("lazy", "v1"), ("abort", "v4")]
    assert (
        "its superblock is shared with pod shop/p2, the host (/srv/3), and umount -f would give EIO to all of them "
        "(allow_abort_shared_io: true); it is mounted for pod shop/p1"
    ) in reasons(made)
    assert "it can end when the server 192.0.2.10 is back" in reasons(made)
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", False), ("p4", True)]
    allowed = plan(found, pods, allow_abort_shared_io=True)
    assert actions(allowed) == [("abort", "v1"), ("abort", "v4")]
    assert allowed["steps"][0]["reason"] == (
        "the server 192.0.2.10 does not answer; it is mounted for pod shop/p1, Terminating since 2026-01-01T11:59:00Z; "
        "allow_abort_shared_io: EIO also for pod shop/p2, the host (/srv/3)"
    )
    assert (allowed["steps"][0]["pods"], allowed["steps"][0]["also"]) == ([uid(1)], [uid(2)])
    assert made["id"] != allowed["id"]


def test_a_sharer_that_only_the_kernel_names_counts() -> None:
    made = plan(host(mount(1, 1, shares_superblock_with=["/hidden"])), cluster(pod(1, deleting=OVER)))
    assert actions(made) == [("lazy", "v1")]
    assert "/hidden, of which nothing is known" in reasons(made)


@pytest.mark.parametrize(
    ("found", "pods", "words"),
    [
        (host(mount(1, 1)), cluster(pod(1, deleting=LEAVING)), "which has until 2026-01-01T12:00:30Z to end by itself"),
        (host(mount(1, 1), mount(2, 2, health="ok")), cluster(pod(1, deleting=OVER), pod(2)), "but mounts from it do"),
        (host(mount(1, 1, stacked=True)), cluster(pod(1, deleting=OVER)), "several mounts lie on each other"),
        (
            host(mount(1, 1), mount(2, parent_id=101), mount(3, parent_id=101)),
            cluster(pod(1, deleting=OVER)),
            "has mounts below it (/srv/2, /srv/3); unmount those first",
        ),
        (
            host(mount(1, 1), mount(2, path=mount(1, 1)["path"], parent_id=101)),
            cluster(pod(1, deleting=OVER)),
            "several mounts lie on each other",
        ),
        (host(mount(1, 9)), cluster(pod(1)), "which this API does not know (is it the right cluster?)"),
        (host(mount(1, "f" * 32), mount(2, 2)), cluster(pod(2)), "which this API does not know"),
        (host(mount(1, health="stale", stacked=True), answers=True), cluster(), "is stale, but several mounts"),
        (host(mount(1, 1, health="stale"), answers=True), cluster(pod(1, deleting=LEAVING)), "is stale; it is mounted"),
        (
            host(mount(1, 1, health="stale"), answers=True),
            cluster(pod(1)),
            "is stale; StatefulSet p makes it again with allow_restart_pods: true",
        ),
        (
            host(mount(1, 1, health="stale"), answers=True),
            cluster(pod(1, owner=None)),
            "nobody would make the pod again: make it again by hand",
        ),
    ],
)
def test_what_must_not_be_touched_is_named_with_the_reason(found: Host, pods: PodSet, words: str) -> None:
    made = plan(found, pods)
    assert made["steps"] == []
    assert words in reasons(made)
    assert {one["host"] for one in made["refusals"]} == {"node1"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            host(mount(1, 1)),
            "waits for the server 192.0.2.10 and goes on when it is back; it is mounted for pod shop/p1",
        ),
        (host(mount(1)), "goes on when it is back; it is mounted for the host (/srv/1)"),
        (
            host(mount(1, 1, health="hung"), answers=True),
            "is hung; its server answers again: after a restart clients wait for up to 90 s; look again then; it is",
        ),
        (
            Host("node1", mounts=[mount(1, 1)]),
            "is unreachable; nobody knows whether its server is there, so nothing is forced; it is mounted",
        ),
    ],
)
def test_what_goes_on_by_itself_is_only_noted(found: Host, words: str) -> None:
    made = plan(found, cluster(pod(1)), **ALL)
    assert (made["steps"], made["refusals"]) == ([], [])
    assert words in made["notes"][0]["reason"]
    assert any(words in line for line in _plan.table(made))


def test_a_pod_that_hangs_on_a_server_that_is_back_is_not_expected_to_go() -> None:
    made = plan(host(mount(1, 1, health="hung"), answers=True), cluster(pod(1, deleting=OVER)), **ALL)
    assert made["steps"] == []
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", False)]


def test_the_server_of_a_mount_and_whether_it_answers() -> None:
    found = host(answers=True)
    seen = {"server": "nas", "source": "nas:/a", "super_options": ["rw", "addr=192.0.2.10"]}
    assert (found.server_of(seen), found.server_answers(seen)) == ("192.0.2.10", True)
    without = {**seen, "super_options": ["rw"]}
    assert (found.server_of(without), found.server_of({**without, "server": None})) == ("nas", "nas:/a")
    elsewhere = {**seen, "super_options": ["addr=192.0.2.10", "port=2050"]}
    assert found.server_answers(elsewhere) is None, "another server, of which nothing is known"
    ports = [{"address": SERVERS[0], "port": port, "answers": port == 2050} for port in (2049, 2050)]
    assert Host("node1", servers=ports).server_answers(elsewhere) is True
    assert Host("node1", servers=ports).server_answers(seen) is False


def test_stale_mounts_of_the_host_are_mounted_anew_and_pods_with_them_made_again() -> None:
    found = host(mount(1, health="stale"), mount(2, 2, health="stale", major_minor="0:51"), answers=True)
    paths = [{"name": "n", "kind": "nfs", "source": f"{SERVERS[0]}:/nfs/3"}]
    paths += [{"name": sub, "kind": "hostPath", "source": f"/srv/1/{sub}"} for sub in ("sub", "other")]
    ending = pod(5, volumes=paths, deleting=LEAVING)
    pods = cluster(
        pod(2), pod(3, volumes=paths), ending, pod(4, volumes=[{"name": "d", "kind": "hostPath", "source": "/var/log"}])
    )
    made = plan(found, pods, allow_restart_pods=True)
    assert actions(made) == [("remount", "1"), ("restart", "p2"), ("restart", "p3")]
    assert made["steps"][0]["options"] == ["rw", "relatime", "rw", "vers=4.2", "addr=192.0.2.10"]
    assert made["steps"][0]["after"] == "mounted anew"
    assert made["steps"][0]["reason"].startswith("the server knows its directory no more; the new mount is tried")
    assert made["steps"][1]["precondition"] == {"uid": uid(2)}
    assert made["steps"][1]["reason"].endswith("v2 is stale")
    assert "made again by StatefulSet p" in made["steps"][1]["after"]
    assert made["steps"][2]["reason"] == "/srv/1/sub (hostPath) is stale"
    assert actions(plan(found, pods)) == [("remount", "1")]


def test_mounts_of_the_inventory_that_are_gone_are_made_again_and_automounts_armed() -> None:
    trigger = {"path": "/auto/there", "mount_id": 7, "parent_id": 1}
    wanted = [
        {"path": "/srv/1"},
        {"path": "/srv/gone/"},
        {"path": "/auto/there", "automount": True},
        {"path": "/auto/gone", "options": ["x-systemd.automount"]},
        {"path": "/srv/kept", "state": "present"},
    ]
    made = plan(host(mount(1, health="ok"), automounts=[trigger], wanted=wanted), cluster())
    assert [(one["module"], one["path"], one["after"]) for one in made["steps"]] == [
        ("nfs_mounts", "/auto/gone", "automount armed"),
        ("nfs_mounts", "/srv/gone/", "mounted"),
    ]
    assert made["steps"][0]["precondition"] == {"mounted": "nothing"}
    away = [{"path": "/srv/a", "src": f"{SERVERS[0]}:/a"}, {"path": "/srv/b", "server": SERVERS[0], "export": "/b"}]
    made = plan(host(mount(1), wanted=away), cluster())
    assert made["steps"] == []
    assert "node1:/srv/a: is not mounted, and the server 192.0.2.10 does not answer" in reasons(made)


def test_a_stale_mount_of_an_automount_is_left_to_its_trigger() -> None:
    trigger = {"path": "/srv/1", "mount_id": 7, "parent_id": 1}
    stale = mount(1, health="stale", parent_id=7)
    (step,) = plan(host(stale, answers=True, automounts=[trigger]), cluster())["steps"]
    assert (step["trigger"], step["after"]) == (True, "unmounted, its automount is armed")


def test_pods_that_the_api_knows_no_more_count_as_gone_only_beside_one_that_it_knows() -> None:
    made = plan(host(mount(1, 9), mount(2, 2, major_minor="0:51")), cluster(pod(2)))
    assert actions(made) == [("abort", "v1")]
    assert "which the API knows no more" in made["steps"][0]["reason"]
    assert made["steps"][0]["pods"] == [uid(9)]


def test_static_pods_are_known_by_the_uid_that_kubelet_gives_them() -> None:
    made = plan(host(mount(1, "f" * 32)), cluster(pod(1, static_uid="f" * 32)))
    assert made["steps"] == []
    assert "it is mounted for pod shop/p1" in made["notes"][0]["reason"]


def test_options_of_a_stale_mount_that_nobody_told_are_left_to_its_superblock() -> None:
    stale = mount(1, health="stale")
    del stale["options"]
    (step,) = plan(host(stale, answers=True), cluster())["steps"]
    assert step["options"] == stale["super_options"]


def test_stale_mounts_of_terminating_pods_are_off_without_force() -> None:
    made = plan(host(mount(1, 1, health="stale"), answers=True), cluster(pod(1, deleting=OVER)))
    assert actions(made) == [("lazy", "v1")]
    assert made["steps"][0]["after"] == "unmounted lazily"
    assert made["steps"][0]["reason"].startswith("is stale: nothing can be written through it any more; it is mounted")
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", True)]


def test_a_plan_tells_what_it_was_made_of() -> None:
    found = host(mount(1, 1, health="ok"), mount(2, 2, health="ok"), mount(3, health="hung"), answers=True)
    made = plan(found, cluster(pod(1), pod(2)), allow_restart_pods=True)
    assert (made["cluster_uid"], made["listed_at"], made["unchanged"]) == ("c", NOW, 2)
    assert made["request"] == {"allow_restart_pods": True, "allow_abort_shared_io": False, "allow_force_delete": False}


def test_nothing_is_said_of_what_is_well() -> None:
    made = plan(host(mount(1, 1, health="ok"), answers=True), cluster(pod(1)), **ALL)
    assert (made["steps"], made["refusals"], made["notes"], made["pods"]) == ([], [], [], [])


def test_a_terminating_pod_whose_volumes_are_fine_is_left_to_kubelet() -> None:
    found = host(mount(1, 1, health="ok"), answers=True)
    for ending in (pod(1, deleting=OVER), pod(1, deleting=OVER, volumes=[])):
        made = plan(found, cluster(ending, pod(2, deleting=OVER, volumes=[])))
        assert made["steps"] == []
        assert [(one["item"], one["reason"]) for one in made["notes"]] == [
            ("shop/p1", "Terminating since 2026-01-01T11:59:00Z; its volumes are fine: kubelet is to remove it")
        ]
        assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", True)]
    away = plan(host(mount(1, 1, health="ok")), cluster(pod(1, deleting=OVER)))
    assert "are fine" not in str(away["notes"]), "it answers still, its server does not"


def test_a_terminating_pod_without_mounts_is_expected_to_go() -> None:
    made = plan(host(), cluster(pod(1, deleting=OVER)))
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", True)]


def test_what_is_missing_waits_for_its_server_by_name_and_by_address() -> None:
    sources = {"/srv/a": "nas:/a", "/srv/b": "192.0.2.10:/b", "/srv/c": f"{SERVERS[1]}:/c"}
    wanted = [{"path": path, "src": source} for path, source in sources.items()]
    made = plan(host({**mount(1), "server": "nas"}, wanted=wanted), cluster())
    assert [(one["host"], one["item"]) for one in made["refusals"]] == [
        ("node1", "node1:/srv/a"),
        ("node1", "node1:/srv/b"),
    ]
    assert [(one["action"], one["item"]) for one in made["steps"]] == [("mount", "node1:/srv/c")]


def test_namespaces_can_be_protected_by_the_request() -> None:
    made = _recover.plan([host(mount(1, 1))], cluster(pod(1, deleting=OVER)), {"protected_namespaces": ["shop"], **ALL})
    assert actions(made) == [("lazy", "v1")]


def test_nodes_without_a_host_are_named_with_what_is_stuck_there() -> None:
    made = plan([], cluster(pod(1, deleting=OVER), pod(2, deleting=OVER), pod(3, deleting=OVER, node="node2")))
    silent, taint = (
        "does not answer (no host of the inventory answers for it)",
        "the taint node.kubernetes.io/out-of-service",
    )
    left = "its Terminating pods are left alone: {}. If the machine is off for good, give the node " + taint
    assert [one["reason"] for one in made["refusals"]] == [
        f"{silent}; {left.format('shop/p1, shop/p2')}",
        f"{silent}; the API says that it is not ready since {OVER}; {left.format('shop/p3')}",
    ]


def test_deletion_by_force_waits_for_kubelet_and_for_the_node() -> None:
    unmounted = pod(2, deleting=OVER)
    pods = cluster(pod(1, deleting=OVER), unmounted, pod(3, deleting=OVER, node="node2"), pod(4))
    made = plan(host(mount(1, 1)), pods, allow_force_delete=True)
    assert actions(made) == [("abort", "v1"), ("force_delete", "p1"), ("force_delete", "p2")]
    assert made["steps"][1]["after"] == "deleted by force"
    assert made["steps"][1]["reason"] == (
        "if kubelet has not removed it in time, and the node confirms that neither mount nor process of it is left"
    )
    assert "node2: does not answer (no host of the inventory answers for it)" in reasons(made)
    assert "the API says that it is not ready since 2026" in reasons(made)
    assert "left alone: shop/p3" in reasons(made)
    assert "node.kubernetes.io/out-of-service" in reasons(made)
    assert "its volumes are unmounted: kubelet is to remove it" in made["notes"][0]["reason"]


@pytest.mark.parametrize(
    ("found", "pods", "words"),
    [
        (host(mount(1, 1), mount(4, 4)), cluster(pod(1, deleting=OVER), pod(4)), "is shared with pod shop/p4"),
        (host(mount(1, 1, health="hung"), answers=True), cluster(pod(1, deleting=OVER)), "still mounted for it"),
        (
            host(),
            cluster(pod(1, deleting=OVER), protected=frozenset({"shop"})),
            "is not deleted by force: its namespace is protected",
        ),
        (host(), cluster(pod(1, deleting=OVER, finalizers=["x/y", "z"])), "has finalizers, which are not ours: x/y, z"),
    ],
)
def test_who_is_not_deleted_by_force_is_named(found: Host, pods: PodSet, words: str) -> None:
    made = plan(found, pods, allow_force_delete=True)
    assert "p1" not in [step.get("name") for step in made["steps"] if step["action"] == "force_delete"] or words in (
        "is shared with pod shop/p4"
    )
    assert words in reasons(made)
    assert {one["host"] for one in made["refusals"]} <= {"node1", "node2", "node3"}


def test_protected_namespaces_are_neither_aborted_nor_made_again() -> None:
    away = plan(host(mount(1, 1)), cluster(pod(1, deleting=OVER), protected=frozenset({"shop"})), **ALL)
    assert ("abort", "v1") not in actions(away)
    assert "the namespace of shop/p1 is protected" in reasons(away)
    both = cluster(pod(1, deleting=OVER), pod(2, deleting=OVER), protected=frozenset({"shop"}))
    assert "the namespace of shop/p1, shop/p2 is protected" in reasons(
        plan(host(mount(1, 1), mount(2, 2)), both, **ALL)
    )
    stale = plan(host(mount(1, 1, health="stale"), answers=True), cluster(pod(1), protected=frozenset({"shop"})), **ALL)
    assert stale["steps"] == []
    assert "but its namespace is protected" in reasons(stale)
    assert {one["host"] for one in (*away["refusals"], *stale["refusals"])} == {"node1"}


def test_a_host_that_does_not_answer_is_named_with_the_pods_of_its_node() -> None:
    silent = Host("node2", problem="timed out")
    made = plan([host(), silent], cluster(pod(1, deleting=OVER, node="node2")), **ALL)
    assert made["steps"] == []
    assert "node2: does not answer (timed out)" in reasons(made)
    assert "left alone: shop/p1" in reasons(made)
    assert made["hosts"] == [{"name": "node1", "problem": ""}, {"name": "node2", "problem": "timed out"}]


def test_a_host_stands_for_the_node_whose_pods_it_mounts_for_or_whose_address_it_has() -> None:
    gone = pod(2, deleting=OVER, volumes=[{"name": "d", "kind": "nfs", "source": "s:/x"}])
    by_pods = plan(host(mount(1, 1), name="a"), cluster(pod(1), gone), allow_force_delete=True)
    by_address = plan(Host("b", address="10.0.0.1"), cluster(gone), allow_force_delete=True)
    assert [one["steps"][-1]["action"] for one in (by_pods, by_address)] == ["force_delete"] * 2
    assert plan(Host("b", address="10.0.0.9"), cluster(gone), allow_force_delete=True)["steps"] == []


def test_a_pod_with_several_volumes_is_waited_for_once_and_only_if_all_are_off() -> None:
    pods = cluster(pod(1, deleting=OVER), pod(2))
    made = plan(host(mount(1, 1, major_minor="0:51"), mount(2, 1), mount(3, 2)), pods)
    assert [(one["name"], one["expected"]) for one in made["pods"]] == [("p1", False)]


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="listed_at: 'soon' is no time"):
        plan(host(), cluster(listed_at="soon"))


# Whatever comes ------------------------------------------------------------------------------------------

POD_STATES = st.sampled_from(["running", "ending", "leaving", "bare", "protected", "gone", "finalizer"])


@st.composite
def outages(draw: st.DrawFn) -> tuple[list[Host], PodSet, dict[str, bool]]:
    pods, hosts, number = [], [], 0
    for name in ("node1", "node2", "node3"):
        mounts = []
        for _number in range(draw(st.integers(0, 5))):
            number += 1
            state = draw(st.sampled_from(["host", "static", *["pod"] * 6]))
            more = {
                "major_minor": draw(st.sampled_from(["0:50", "0:51", "0:52"])),
                "health": draw(st.sampled_from(["ok", "hung", "stale", "unreachable", "unreachable"])),
                "server": draw(st.sampled_from(SERVERS)),
                "stacked": draw(st.integers(0, 9)) == 0,
            }
            if state == "pod":
                kind = draw(POD_STATES)
                mounts.append(mount(number, number, **more))
                if kind != "gone":
                    pods.append(
                        pod(
                            number,
                            node=name,
                            namespace="vault" if kind == "protected" else "shop",
                            owner=None if kind == "bare" else "StatefulSet p",
                            deleting={"running": None, "leaving": LEAVING}.get(
                                kind, draw(st.sampled_from([OVER, None]))
                            ),
                            finalizers=["x/y"] if kind == "finalizer" else [],
                        )
                    )
            else:
                mounts.append(mount(number, "f" * 31 + str(number % 10) if state == "static" else None, **more))
        for _number in range(draw(st.integers(0, 2))):
            number += 1
            pods.append(pod(number, node=name, deleting=draw(st.sampled_from([OVER, LEAVING, None]))))
        servers = [{"address": one, "port": 2049, "answers": draw(st.booleans())} for one in SERVERS]
        if draw(st.integers(0, 4)) == 0:
            hosts.append(Host(name, problem="timed out"))
        elif draw(st.integers(0, 9)):
            hosts.append(Host(name, mounts=mounts, servers=servers))
    return hosts, cluster(*pods, protected=frozenset({"vault"})), {word: draw(st.booleans()) for word in WORDS}


@given(outages())
def test_nobody_is_hit_without_need_or_word(outage: tuple[list[Host], PodSet, dict[str, bool]]) -> None:
    hosts, pods, allowed = outage
    made = _recover.plan(hosts, pods, allowed)
    by_uid = {one["uid"]: one for one in pods.pods}
    by_name = {one.name: one for one in hosts}

    def over(one: Mapping[str, Any]) -> bool:
        if not one["pod"]:
            return False
        known = by_uid.get(one["pod"]["uid"])
        return "-" in one["pod"]["uid"] and (known is None or known["deleting"] == OVER)

    for step in made["steps"]:
        told = by_name[step["host"]]
        assert not told.problem, "a step on a host that did not answer"
        assert step["precondition"]
        assert all(step["precondition"].values())
        if step["module"] == "nfs_recover":
            (target,) = [one for one in told.mounts if one["mount_id"] == step["precondition"]["mount_id"]]
            assert step["precondition"]["major_minor"] == target["major_minor"]
            assert not target["stacked"]
            superblock = [one for one in told.mounts if one["major_minor"] == target["major_minor"]]
            if step["action"] == "remount":
                assert not target["pod"]
                assert target["health"] == "stale"
                continue
            assert over(target), "only what is for a pod that is being killed goes"
            assert target["health"] == "stale" or told.server_answers(target) is False
            assert any(one["pod"] and one["pod"]["uid"] in by_uid for one in told.mounts), "no sign of this cluster"
            if step["action"] == "abort":
                assert told.server_answers(target) is False
                assert allowed["allow_abort_shared_io"] or all(over(one) for one in superblock)
                assert step["precondition"]["superblock"] == sorted(one["mount_id"] for one in superblock)
                sharers = [by_uid.get((one["pod"] or {}).get("uid")) for one in superblock]
                assert not any(one and one["namespace"] == "vault" for one in sharers)
                for one in superblock:
                    if not over(one):
                        assert (one["path"] if not one["pod"] else "pod ") in step["reason"]
        else:
            known = by_uid[step["precondition"]["uid"]]
            assert known["namespace"] != "vault"
            assert allowed["allow_restart_pods" if step["action"] == "restart" else "allow_force_delete"]
            if step["action"] == "restart":
                assert known["owner"]
                assert not known["deleting"]
            else:
                assert known["deleting"] == OVER
                assert known["node"] == step["host"], "by force on a node that did not answer"
    # Nobody who cannot end is passed over in silence.
    said = {one["item"] for one in (*made["steps"], *made["refusals"], *made["notes"])}
    for told in hosts:
        for one in told.mounts:
            if one["health"] != "ok" and not told.problem:
                owner = by_uid.get((one["pod"] or {}).get("uid"))
                assert f"{told.name}:{one['path']}" in said or (owner and name_of(owner) in said)
        assert not told.problem or told.name in said


@given(outages(), st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_plan(
    outage: tuple[list[Host], PodSet, dict[str, bool]], chance: random.Random
) -> None:
    hosts, pods, allowed = outage
    made = _recover.plan(hosts, pods, allowed)

    def shuffled(items: Any) -> Any:
        items = list(items)
        chance.shuffle(items)
        return items

    again = [Host(one.name, one.address, one.problem, shuffled(one.mounts), shuffled(one.servers)) for one in hosts]
    other = PodSet(pods.cluster_uid, pods.listed_at, pods.protected, shuffled(pods.nodes), shuffled(pods.pods))
    assert _recover.plan(shuffled(again), other, dict(allowed)) == made
    assert _plan.read(_plan.write(made), "recover") == made


# From files ----------------------------------------------------------------------------------------------


def given_files(folder: Path, hosts: list[str], *pods: dict[str, Any]) -> dict[str, Any]:
    (folder / "hosts").write_text("".join(f"{line}\n" for line in hosts))
    (folder / "pods").write_text("".join(f"{line}\n" for line in _pods.lines(cluster(*pods))))
    return {
        "action": "recover",
        "plan": None,
        "listing": str(folder / "pods"),
        "recover": {"nodes": str(folder / "hosts"), "allow_force_delete": True},
        "max_changes": None,
    }


def told(*mounts: dict[str, Any], **more: Any) -> str:
    servers = [{"address": SERVERS[0], "port": 2049, "answers": False}]
    return json.dumps(
        {
            "name": "node1",
            "address": "",
            "problem": "",
            "mounts": mounts,
            "servers": servers,
            "automounts": [],
            "wanted": [],
            **more,
        }
    )


def test_a_plan_is_made_of_the_files_and_checked_when_it_is_read_again(tmp_path: Path) -> None:
    wanted = [{"path": "/srv/gone", "src": f"{SERVERS[1]}:/a"}]
    files = given_files(tmp_path, [told(mount(1, 1), wanted=wanted)], pod(1, deleting=OVER))
    made = _planner.plan(files).plan
    assert [step.get("action") for step in made["steps"]] == ["mount", "abort", "force_delete"]
    (tmp_path / "plan").write_text(_plan.write(made))
    assert _planner.plan({**files, "plan": str(tmp_path / "plan"), "listing": None}).plan == made
    with pytest.raises(ValueError, match="3 mounts and pods would be changed, but max_changes is 1"):
        _planner.plan({**files, "max_changes": "1"})
    with pytest.raises(ValueError, match="for recover give a count"):
        _planner.plan({**files, "max_changes": "10%"})
    with pytest.raises(ValueError, match="recover: is needed"):
        _planner.plan({**files, "recover": None})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1"),
        ("[]", "line 1"),
        (json.dumps({"name": "node1"}), "address"),
        (told({"path": "/srv"}), "source"),
        (told({**mount(1), "major_minor": ""}), "mount '/srv/1' has no major_minor"),
        (told(mount(1), wanted=[{"src": f"{SERVERS[0]}:/a"}]), "'path'"),
    ],
)
def test_what_no_node_told_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _planner.plan(given_files(tmp_path, [line]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("{}\n", "line 1"),
        ('{"schema": 2}\n', "schema is 2; expected 1"),
        ('{"schema": 1, "kind": "VolumeSet"}\n', "no header of kind PodSet"),
        (
            '{"schema": 1, "kind": "PodSet", "cluster_uid": "c", "listed_at": "t", "protected_namespaces": []}\n'
            '{"schema": 1, "kind": "Service"}\n',
            "line 2",
        ),
    ],
)
def test_what_pod_info_did_not_write_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "pods").write_text(content)
    with pytest.raises(ValueError, match=words):
        _pods.load(str(tmp_path / "pods"))
