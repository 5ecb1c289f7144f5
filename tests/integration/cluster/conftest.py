# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane of its own for tests of the API: no machines, so that it is there within seconds."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import binaries
from lab.control_plane import ControlPlane, Ports
from lab.settings import pins

from .cluster import ROOT, Cluster
from .diagnosis import runner, sweep
from .disk import Disk, on_server
from .kubelet import Kubelet
from .storage_role import Run, clear


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def own_cluster(folder: Path) -> Iterator[Cluster]:
    """The cluster of a control plane that lives in `folder`, made here."""
    folder.mkdir()
    plane = ControlPlane(folder, Ports(*free_ports(5)), binaries.kubernetes(pins()["kubernetes"][0]), binaries.etcd())
    plane.make_certificates([])
    try:
        plane.start()
        yield Cluster(plane)
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, own_cluster(Path(folder) / "plane") as cluster:
        yield cluster


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without volumes and claims, before and after."""
    cluster.clear()
    yield cluster
    cluster.clear()


@pytest.fixture(scope="session", autouse=True)
def one_runner() -> Iterator[None]:
    """The process of storage_diagnose, if there was one, ends with the tests."""
    yield
    if runner.cache_info().currsize:
        runner().communicate()
        runner.cache_clear()


@pytest.fixture
def clean(empty: Cluster) -> Iterator[Cluster]:
    """Without what the tests of storage_diagnose make besides claims, pods and volumes."""
    sweep(empty)
    yield empty
    sweep(empty)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "image", tmp_path / "disk")
    found.place.mkdir()
    with found.image.open("wb") as stream:
        stream.truncate(64 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", found.image], check=True)
    found.mount()
    try:
        found.share.mkdir()
        found.own.mkdir()
        yield found
    finally:
        subprocess.run(["umount", found.place], check=True)


@pytest.fixture
def noted(empty: Cluster, disk: Disk) -> Disk:
    """The shares, with the note that the cluster uses them."""
    uid = empty.done("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    assert on_server("volume_dirs", state="present", shares=[str(disk.share), str(disk.own)], clusters=[uid])["changed"]
    return disk


@pytest.fixture
def node(empty: Cluster) -> Iterator[Cluster]:
    with Kubelet(empty):
        yield empty


@pytest.fixture
def role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Cluster) -> Iterator[Callable[..., Run]]:
    """Run the role; afterwards nothing of it is left in the cluster."""
    play: dict[str, Any] = {
        "name": "Storage",
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {
            f"group/{group}": {"kubeconfig": node.kubeconfig}
            for group in ("kubernetes.core.k8s", "kubernetes.core.helm", "clusterkit.storage.k8s")
        },
        "roles": ["clusterkit.storage.k8s_storage"],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    monkeypatch.setenv("ANSIBLE_CALLBACK_PLUGINS", str(ROOT / "tests/callback_plugins"))
    monkeypatch.setenv("ANSIBLE_CALLBACKS_ENABLED", "count_modules")
    monkeypatch.setenv("COUNT_MODULES_FILE", str(tmp_path / "modules"))
    (tmp_path / "changed-run").touch()
    (tmp_path / "changed-check").touch()

    def run(*options: str, **variables: Any) -> Run:
        given = {f"k8s_storage_{name}": value for name, value in variables.items()}
        done = node.play(tmp_path / "play.yml", *options, k8s_storage_timeout=90, **given)
        modules = Counter(line.split()[1] for line in (tmp_path / "modules").read_text().splitlines())
        return Run(done, modules)

    yield run
    clear(node)
