# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook backup with commands in pods, through a real API server; their containers are this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..integration.cluster.cluster import Cluster
from .site import BACKUP, Site, on_own_disk

PODS = "/api/v1/namespaces/shop/pods"
OWED = "storage.clusterkit/after"


class Database:
    """A pod whose commands write a log, and a dump into the volume."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.log = site.folder / "log"
        site.make()
        (site.volume / "a").write_text("good")
        container = {
            "name": "db",
            "image": "docker.io/library/busybox:1.36",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        spec = {
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "automountServiceAccountToken": False,
        }
        site.cluster.done("POST", PODS, {"metadata": {"name": "db"}, "spec": spec})
        site.cluster.wait(lambda: self.pod()["status"].get("phase") == "Running")

    def pod(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.cluster.done("GET", f"{PODS}/db")
        return found

    def owed(self) -> str | None:
        found: str | None = (self.pod()["metadata"].get("annotations") or {}).get(OWED)
        return found

    def commands(self, before: str = "true", after: str = "true") -> list[dict[str, Any]]:
        def words(name: str, then: str) -> list[str]:
            return ["sh", "-c", f"echo {name} >> '{self.log}'; {then}"]

        dump = f"echo whole > '{self.site.volume}/dump'; {before}"
        return [{"claim": "shop/*", "before": words("before", dump), "after": words("after", after)}]

    def words(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def database(node: Cluster, tmp_path: Path) -> Iterator[Database]:
    for site in on_own_disk(node, tmp_path, "rsync"):
        yield Database(site)


@pytest.mark.long
def test_around_the_copy_whatever_becomes_of_it(database: Database) -> None:
    site = database.site
    given = {"backup_names": "pv-odd", "backup_create": True}
    tried = site.good(BACKUP, "--check", **given, backup_commands=database.commands())
    assert "commands before and after would be run" in tried
    assert (database.words(), database.owed()) == ([], None)
    words = site.good(BACKUP, **given, backup_commands=database.commands())
    assert "pod shop/db, container db: commands before and after were run" in words
    assert database.words() == ["before", "after"]
    (dump,) = site.repository.glob("shop/pv-odd/2*/data/dump")
    assert dump.read_text() == "whole\n"

    # A copy that fails; a command that fails, with which its volume is left alone.
    site.hosts(server={"ansible_host": "127.0.0.1", "ansible_port": 9})
    status, words = site.play(BACKUP, **given, backup_commands=database.commands())
    assert status and "shop/data (pv-odd): server:" in words
    assert (database.words()[2:], database.owed()) == (["before", "after"], None)
    site.hosts(server={"ansible_connection": "local"})
    status, words = site.play(BACKUP, **given, backup_commands=database.commands(before="echo no room >&2; exit 7"))
    assert status and "shop/data (pv-odd): pod shop/db, container db: before: exit status 7: no room" in words
    assert (database.words()[4:], database.owed()) == (["before", "after"], None)
    assert len(list(site.repository.glob("shop/pv-odd/2*"))) == 1
    # What follows fails: the generation is there, and the next run makes up for it.
    status, words = site.play(BACKUP, **given, backup_commands=database.commands(after="test -e /nowhere"))
    assert status and "container db: is owed its command after: after: exit status 1" in words
    assert len(list(site.repository.glob("shop/pv-odd/2*"))) == 2
    assert database.owed()
    status, words = site.play(BACKUP, backup_start_left=True)
    assert status and "after: exit status 1" in words


@pytest.mark.long
def test_what_a_killed_run_owes_is_run_by_the_next(database: Database) -> None:
    site = database.site
    given = {"backup_names": "pv-odd", "backup_create": True, "backup_commands": database.commands()}
    for start_left in (False, True):
        before = len(database.words())
        site.kill_backup(**given)
        assert database.words()[before:] == ["before"]
        assert database.owed()
        if start_left:
            site.good(BACKUP, backup_start_left=True)
            assert database.words()[before:] == ["before", "after"]
        else:
            # One for other volumes, or without commands, names it.
            words = site.good(BACKUP, backup_names="pv-odd")
            assert "pod shop/db, container db: is owed a command since" in words
            words = site.good(BACKUP, **given)
            assert "an earlier run had left its own" in words
            assert database.words()[before:] == ["before", "after", "before", "after"]
        assert database.owed() is None
