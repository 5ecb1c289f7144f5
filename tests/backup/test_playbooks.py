# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks backup, restore and backup_verify against a real API server; the file server is this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..integration.cluster.cluster import Cluster
from .site import BACKUP, CLASSES, Site, on_own_disk
from .trees import difference, odd_tree, picture
from .world import names

RESTORE, VERIFY = "clusterkit.storage.restore", "clusterkit.storage.backup_verify"


@pytest.fixture(params=[pytest.param("rsync", marks=pytest.mark.long), "restic"])
def site(request: pytest.FixtureRequest, empty: Cluster, tmp_path: Path) -> Iterator[Site]:
    yield from on_own_disk(empty, tmp_path, request.param)


@pytest.fixture
def rsync_site(empty: Cluster, tmp_path: Path) -> Iterator[Site]:
    yield from on_own_disk(empty, tmp_path, "rsync")


def test_from_a_living_claim_to_an_emptied_cluster_and_back(site: Site, request: pytest.FixtureRequest) -> None:
    site.make(policy="Delete")
    odd_tree(site.volume, 5000 if request.config.getoption("--long") else 600)
    if site.engine == "restic":
        (site.volume / "odd/dangling").unlink()  # leads to bytes that are not UTF-8
    limits = {"holes": site.engine == "rsync", "sockets": site.engine == "rsync"}
    before = picture(site.volume, **limits)
    first = site.good(BACKUP, backup_namespaces="shop", backup_create=True)
    assert "shop/data (pv-odd): generation" in first
    second = site.good(BACKUP, backup_claims="shop/*", backup_claim_labels={})
    assert ", 0 changed, 0 B stored" in second or site.engine == "restic", second[-3000:]
    assert "files compared" in site.good(VERIFY, backup_verify_sample=20)
    assert difference(before, picture(site.volume, **limits)) == {}

    site.remove("shop")
    shutil.rmtree(site.volume)
    shown = site.good(RESTORE, restore_namespaces="shop")
    assert "makes claim, class, volume" in shown and "Nothing was done" in shown
    site.good(RESTORE, "--check", restore_namespaces="shop", restore_confirm=True)
    assert names(site.shares["server"]) == []
    assert site.cluster.volumes() == {}
    done = site.good(RESTORE, restore_plan_file=str(site.folder / "plan.json"))
    assert "restored and verified" in done
    assert difference(before, picture(site.volume, **limits)) == {}
    volume, claim = site.cluster.volume("pv-odd"), site.cluster.claim("data", "shop")
    assert (volume["status"]["phase"], claim["status"]["phase"]) == ("Bound", "Bound")
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert (claim["spec"]["volumeName"], volume["spec"]["persistentVolumeReclaimPolicy"]) == ("pv-odd", "Delete")
    assert site.cluster.done("GET", f"{CLASSES}/kept")["parameters"] == {"a": "b"}

    # Into the same claim: what has come since is in quarantine, not lost.
    (site.volume / "since").write_text("precious")
    (site.volume / "odd/empty").write_text("changed")
    words = site.good(RESTORE, restore_claims="shop/data", restore_confirm=True)
    assert "what there is goes into quarantine" in words or "what was there is in" in words
    assert difference(before, picture(site.volume, **limits)) == {}
    (kept,) = (site.shares["server"] / ".clusterkit/trash").glob("*/data/since")
    assert kept.read_text() == "precious"
    # Retention has a switch of its own.
    words = site.good(BACKUP, backup_namespaces="shop", backup_retention={"last": 1})
    assert "removed" in words


@pytest.mark.long
def test_a_claim_that_is_mounted_is_refused_unless_the_run_stops_its_pods(rsync_site: Site) -> None:
    site = rsync_site
    site.make()
    (site.volume / "a").write_text("good")
    site.deployment(2)
    result = site.folder / "result.jsonl"
    words = site.good(
        BACKUP, backup_names="pv-*", backup_create=True, backup_scale=True, backup_result_dest=str(result)
    )
    assert "Deployment shop/web: started again with 2 replicas" in words
    assert json.loads(result.read_text())["state"] == "done"
    assert site.replicas() == (2, None)
    (site.volume / "a").write_text("bad")
    status, words = site.play(RESTORE, restore_claims=["shop/data"], restore_confirm=True)
    assert status and "mounts it; stop it, or let this run do it" in words
    assert (site.volume / "a").read_text() == "bad"
    site.good(RESTORE, "--check", restore_claims=["shop/data"], restore_scale=True, restore_confirm=True)
    assert site.replicas() == (2, None)
    assert (site.volume / "a").read_text() == "bad"
    words = site.good(RESTORE, restore_claims=["shop/data"], restore_scale=True, restore_confirm=True)
    assert "started again with 2 replicas" in words
    assert (site.volume / "a").read_text() == "good"
    assert site.replicas() == (2, None)
    # A pod that nobody makes again cannot be stopped.
    container = {"name": "c", "image": "docker.io/library/busybox:1.36"}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod: dict[str, Any] = {"metadata": {"name": "lonely"}, "spec": {"containers": [container], "volumes": volumes}}
    pod["spec"]["automountServiceAccountToken"] = False
    site.cluster.done("POST", "/api/v1/namespaces/shop/pods", pod)
    status, words = site.play(BACKUP, backup_names="pv-odd", backup_scale=True)
    assert status and "belongs to nobody, which cannot be scaled to zero" in words
    assert site.replicas() == (2, None)


@pytest.mark.long
def test_replicas_come_back_after_a_failure(site: Site) -> None:
    site.make()
    (site.volume / "a").write_text("good")
    site.deployment(3)
    # The disk for backups is not there.
    status, words = site.play(BACKUP, backup_names="pv-odd", backup_scale=True)
    assert status and "is the disk mounted" in words
    assert site.replicas() == (3, None)
    shutil.rmtree(site.volume)
    status, words = site.play(BACKUP, backup_names="pv-odd", backup_scale=True, backup_create=True)
    assert status and "No such file or directory" in words
    assert site.replicas() == (3, None)
    # A server that does not answer.
    site.hosts(server={"ansible_host": "127.0.0.1", "ansible_port": 9})
    status, words = site.play(BACKUP, backup_names="pv-odd", backup_scale=True)
    assert status and "shop/data (pv-odd): server:" in words, words[-3000:]
    assert site.replicas() == (3, None)


@pytest.mark.long
def test_a_killed_run_is_put_right_by_the_next(rsync_site: Site) -> None:
    site = rsync_site
    site.make()
    site.deployment(2)
    for start_left in (False, True):
        site.kill_backup(backup_names="pv-odd", backup_scale=True, backup_create=True)
        assert site.replicas()[0] == 0
        if start_left:
            site.good(BACKUP, backup_start_left=True)
            assert site.replicas() == (2, None)
            continue
        words = site.good(BACKUP, backup_names="pv-odd", backup_scale=True)
        assert "started again with 2 replicas, which an earlier run had stopped" in words
        assert site.replicas() == (2, None)


@pytest.mark.long
def test_into_a_new_claim_another_server_and_single_paths(rsync_site: Site) -> None:
    site = rsync_site
    site.make()
    (site.volume / "sub").mkdir()
    for name in ("a", "sub/b"):
        (site.volume / name).write_text(f"good {name}")
    site.good(BACKUP, backup_labels="", backup_storage_classes="kept", backup_create=True)
    for name in ("a", "sub/b"):
        (site.volume / name).write_text(f"bad {name}")
    local = {"ansible_connection": "local"}
    site.hosts(server=local, second=local)
    wanted = [
        {"namespace": "shop", "claim": "data", "paths": ["sub/b"]},
        {"namespace": "shop", "claim": "data", "to_namespace": "copy", "to_claim": "mine"},
        {"namespace": "shop", "name": "pv-odd", "to_claim": "far", "to_server": "second", "to_name": "pv-far"},
    ]
    words = site.good(RESTORE, restore_volumes=wanted, restore_confirm=True)
    assert "copy/mine has volume restored-copy-mine" in words
    assert [(site.volume / name).read_text() for name in ("a", "sub/b")] == ["bad a", "good sub/b"]
    for folder in (site.shares["server"] / "restored-copy-mine", site.shares["second"] / "pv-far"):
        assert [(folder / name).read_text() for name in ("a", "sub/b")] == ["good a", "good sub/b"]
    for name, namespace, volume, server in (
        ("mine", "copy", "restored-copy-mine", "192.0.2.10"),
        ("far", "shop", "pv-far", "192.0.2.11"),
    ):
        site.wait_bound(name, namespace)
        assert site.cluster.claim(name, namespace)["spec"]["volumeName"] == volume
        made = site.cluster.volume(volume)["spec"]
        assert (made["nfs"]["server"], made["persistentVolumeReclaimPolicy"]) == (server, "Retain")
    # The same again is refused, and so is what belongs to somebody else by now.
    status, words = site.play(RESTORE, restore_volumes=wanted[1:2], restore_confirm=True)
    assert status and "volume restored-copy-mine exists already" in words
    site.cluster.delete_claim("data", "shop")
    site.cluster.wait(lambda: site.cluster.phase("pv-odd") == "Released")
    words = site.good(RESTORE, restore_claims="shop/data", restore_confirm=True)
    site.wait_bound("data", "shop")
    assert (site.volume / "a").read_text() == "good a"


@pytest.mark.long
def test_wrong_selections_and_trials_do_nothing(rsync_site: Site) -> None:
    site = rsync_site
    site.make()
    (site.volume / "a").write_text("good")
    status, words = site.play(BACKUP)
    assert status and "no selection never means all" in words
    status, words = site.play(RESTORE)
    assert status and "no selection never means all" in words
    assert "would copy" in site.good(BACKUP, "--check", backup_namespaces="shop", backup_create=True)
    assert not site.repository.exists()
    status, words = site.play(BACKUP, backup_claims="shop/nothing", backup_create=True)
    assert status and "shop/nothing: is bound to no volume of the selection" in words
    status, words = site.play(RESTORE, restore_claims="shop/nothing", restore_confirm=True)
    assert status and "there is no backup of it" in words
