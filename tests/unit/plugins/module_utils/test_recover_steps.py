# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a recovery have all that the modules which do them ask for."""

from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_steps import Findings, item_of

MOUNT = {"path": "/srv/a", "source": "s:/a", "mount_id": 7, "major_minor": "0:50", "health": "stale"}


def test_a_step_of_nfs_recover() -> None:
    found = Findings()
    found.mount_step("node1", MOUNT, action="abort", precondition={"superblock": [7]})
    assert found.steps == [
        {
            "item": "node1:/srv/a",
            "host": "node1",
            "module": "nfs_recover",
            "path": "/srv/a",
            "source": "s:/a",
            "before": "stale, s:/a",
            "action": "abort",
            "precondition": {"mount_id": 7, "major_minor": "0:50", "superblock": [7]},
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        ({}, "mounted"),
        ({"automount": True}, "automount armed"),
        ({"automount": False, "options": "soft"}, "mounted"),
        ({"options": ["x-systemd.automount", "soft"]}, "automount armed"),
    ],
)
def test_a_step_of_nfs_mounts(wanted: dict[str, object], after: str) -> None:
    found = Findings()
    found.missing_step("node1", {"path": "/srv/a/", **wanted}, "/srv/a")
    assert found.steps == [
        {
            "item": "node1:/srv/a",
            "host": "node1",
            "module": "nfs_mounts",
            "action": "mount",
            "path": "/srv/a/",
            "precondition": {"mounted": "nothing"},
            "before": "not mounted",
            "after": after,
            "reason": "nfs_client_mounts of the inventory says so",
        }
    ]


@pytest.mark.parametrize(("deleting", "before"), [(None, "Running"), ("2026-01-01", "Terminating since 2026-01-01")])
def test_a_step_of_pod_recover(deleting: str | None, before: str) -> None:
    found = Findings()
    pod = {"namespace": "shop", "name": "web", "uid": "u1", "phase": "Running", "deleting": deleting}
    found.pod_step("node1", pod, "restart", "made again", "is stale")
    assert found.steps == [
        {
            "item": "shop/web",
            "host": "node1",
            "module": "pod_recover",
            "action": "restart",
            "namespace": "shop",
            "name": "web",
            "precondition": {"uid": "u1"},
            "before": before,
            "after": "made again",
            "reason": "is stale",
        }
    ]


def test_the_same_is_said_once() -> None:
    found = Findings()
    for _again in range(2):
        found.refuse("node1", "a", "why")
        found.note("node1", "a", "why")
    assert found.refusals == found.notes == [{"item": "a", "host": "node1", "reason": "why"}]
    assert item_of("node1", "/a") == "node1:/a"
