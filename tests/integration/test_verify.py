# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook verify finds out about the lab's storage, and that nothing of it stays, after a failure either."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import INVENTORY, Play, play

# Pods that cannot start are waited for until the time is over; those of verify_deep are many on emulated machines.
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("lab")]

CLASS = "managed-nfs-storage"
GONE = "ok: all objects, volumes and directories of the test are gone"


def said(done: Play) -> str:
    """What was said, without the quotes that YAML doubles."""
    return done.words.replace("''", "'")


def test_what_is_said_of_a_class_was_tried(look: Callable[[], Any]) -> None:
    before = look()
    done = play("clusterkit.storage.verify", "-everify_deep=true")
    assert done.status == 0, done.output[-5000:]
    words = said(done)
    both = re.search(
        rf"ok: class {CLASS}: a claim of 2Mi is Bound; (\w+) wrote SUCCESS, (\w+) read it and wrote back, \1 read that",
        words,
    )
    assert both and set(both.groups()) == {"node1", "node2"}, words
    for line in (
        f"note: class {CLASS}: size not enforced: 8 MiB were written into a claim of 2Mi",
        # The export that site derives has root_squash, the directory of a volume is open to all.
        f"note: class {CLASS}: uid mapping (root_squash): 0:0 writes as 65534:65534 on server1, 1000:1000 as 1000:1000",
        f"note: class {CLASS}: ReadOnlyMany is not enforced by the access mode: node",
        f"ok: class {CLASS}: ReadOnlyMany is enforced by readOnly: true of the pod's volume",
        f"ok: class {CLASS}: ReadOnlyMany is enforced by the mount option ro",
        GONE,
    ):
        assert line in words, f"{line!r} is not said:\n{done.output[-5000:]}"
    assert "WRONG:" not in words and "not checked:" not in words
    assert {host: done.recap(host)["changed"] for host in ("localhost", "server1")} == {"localhost": 0, "server1": 0}
    assert look() == before


def test_after_pods_that_cannot_start_nothing_is_left(
    own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    values = yaml.safe_load((INVENTORY / "group_vars/all.yml").read_text())
    (kept,) = values["k8s_storage_classes"]
    inventory = own_inventory(k8s_storage_classes=[kept, {**kept, "name": "second"}])
    before = look()
    done = play(
        "clusterkit.storage.verify",
        *("-everify_classes=second", "-everify_image=localhost:9/there-is-none:1", "-everify_timeout=60"),
        inventory=inventory,
    )
    assert done.status != 0
    words = said(done)
    # One class was tried, the other was not.
    for pod in ("write-1", "read-1", "inline-1"):
        assert re.search(rf"WRONG: a test pod did not succeed: Pod storage-verify-[\d-]+/{pod}: ", words), done.output
    assert "write-2" not in words
    assert GONE in words, done.output[-5000:]
    assert look() == before
