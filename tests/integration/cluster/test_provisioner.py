# SPDX-License-Identifier: GPL-3.0-or-later
"""With a provisioner at work, the lab's, whose share is a local folder: what becomes of the data of claims."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import binaries

from .cluster import PROVISIONER, Cluster, volume

SERVER, SHARE = "192.0.2.10", "/nfs/k8s/dpv"


@pytest.fixture
def provisioner(empty: Cluster, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start it, with the folder `share` as its share."""
    (tmp_path / "share").mkdir()
    runs = []

    def start() -> subprocess.Popen[bytes]:
        variables = {"PROVISIONER_NAME": PROVISIONER, "NFS_SERVER": SERVER, "NFS_PATH": SHARE}
        with (tmp_path / "provisioner.log").open("ab") as log:
            run = subprocess.Popen(
                [binaries.provisioner() / "provisioner", "-root", tmp_path / "share"],
                env={**os.environ, **variables, "KUBECONFIG": empty.kubeconfig},
                stdout=log,
                stderr=log,
            )
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.kill()
        run.wait()


def make_class(cluster: Cluster, name: str, policy: str) -> None:
    cluster.request("DELETE", f"/apis/storage.k8s.io/v1/storageclasses/{name}")
    body: dict[str, Any] = {"metadata": {"name": name}, "provisioner": PROVISIONER, "reclaimPolicy": policy}
    cluster.done("POST", "/apis/storage.k8s.io/v1/storageclasses", body | {"parameters": {"archiveOnDelete": "false"}})


def test_the_same_claim_reads_its_old_data_again(
    empty: Cluster, provisioner: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    make_class(empty, "kept", "Delete")
    provisioner()
    for name in ("data", "rival"):
        empty.make_claim(name, storage_class="kept")
    for name in ("data", "rival"):
        empty.wait_bound(name)
    first = empty.claim("data")["spec"]["volumeName"]
    folder = tmp_path / "share" / f"default-data-{first}"
    (folder / "precious").write_text("old content")
    # Policy first, while it is bound: from now on a deleted claim costs nothing.
    result = empty.direct("pv_reclaim", selection={"storage_classes": ["kept"]}, policy="Retain")
    assert result["summary"]["changed"] == 2
    empty.delete_claim("data")
    empty.wait(lambda: empty.phase(first) == "Released")
    refused = empty.direct("pv_reclaim", volumes=[first], policy="Delete", allow_future_deletion=True)
    assert "would destroy its data now" in refused["volumes"][0]["reason"]
    # While the volume is reserved, somebody else of the same class gets a new one.
    done = empty.direct("pv_reclaim", volumes=[first], release="reserved", wait=True)
    assert done["summary"]["changed"] == 1, done
    empty.make_claim("stranger", storage_class="kept")
    empty.wait_bound("stranger")
    assert empty.claim("stranger")["spec"]["volumeName"] != first
    empty.make_claim("data", storage_class="kept")
    empty.wait_bound("data")
    assert empty.claim("data")["spec"]["volumeName"] == first
    assert (folder / "precious").read_text() == "old content"
    record = empty.direct("pv_info", selection={"names": [first]})["volumes"][0]
    assert record["path"] == f"{SHARE}/{folder.name}"
    assert record["provisioner_state"] == "running"


def test_a_volume_whose_provisioner_may_be_deleting_it_is_not_released(
    empty: Cluster, provisioner: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Its deletion fails here, so that the volume can be looked at."""
    make_class(empty, "broken", "Delete")
    run = provisioner()
    empty.make_claim("data", storage_class="broken")
    empty.wait_bound("data")
    name = empty.claim("data")["spec"]["volumeName"]
    empty.done("DELETE", "/apis/storage.k8s.io/v1/storageclasses/broken")  # blocks deletion
    empty.delete_claim("data")
    empty.wait(lambda: empty.phase(name) == "Released")
    at_once = empty.direct("pv_reclaim", volumes=[name], policy="Retain", release="open")
    assert f"its provisioner {PROVISIONER} is running" in at_once["volumes"][0]["reason"]
    assert empty.direct("pv_reclaim", volumes=[name], policy="Retain")["summary"]["changed"] == 1
    make_class(empty, "broken", "Delete")
    later = empty.direct("pv_reclaim", volumes=[name], release="open", wait=True)
    assert later["volumes"][0]["phase"] == "Available", later
    assert (tmp_path / "share" / f"default-data-{name}").is_dir()
    run.kill()


def test_volumes_of_a_provisioner_that_has_stopped_are_abandoned(
    empty: Cluster, provisioner: Callable[[], subprocess.Popen[bytes]]
) -> None:
    run = provisioner()
    lock = f"/api/v1/namespaces/default/endpoints/{PROVISIONER.replace('/', '-')}"
    empty.wait(lambda: empty.request("GET", lock)[0] == 200)
    for name, provisioned in (("ours", PROVISIONER), ("static", None)):
        empty.done("POST", "/api/v1/persistentvolumes", volume(name, provisioner=provisioned))
    assert empty.direct("pv_info", selection={"abandoned": True})["volumes"] == []
    run.kill()
    run.wait()
    # A minute later, without waiting for it: nobody has renewed the lock since.
    annotation = "control-plane.alpha.kubernetes.io/leader"
    leader = empty.done("GET", lock)["metadata"]["annotations"][annotation]
    year = leader.index('"renewTime":"') + len('"renewTime":"')
    old = leader[:year] + "2020" + leader[year + 4 :]
    empty.patch(lock, {"metadata": {"annotations": {annotation: old}}})
    found = empty.direct("pv_info", selection={"abandoned": True})["volumes"]
    assert [one["name"] for one in found] == ["ours"]
