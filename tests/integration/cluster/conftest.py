# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane of its own for tests of the API: no machines, so that it is there within seconds."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from lab import binaries  # noqa: E402 (needs the path above)
from lab.control_plane import ControlPlane, Ports  # noqa: E402 (as above)
from lab.settings import pins  # noqa: E402 (as above)

from .cluster import Cluster  # noqa: E402 (as above)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        plane = ControlPlane(
            Path(folder), Ports(*free_ports(5)), binaries.kubernetes(pins()["kubernetes"][0]), binaries.etcd()
        )
        plane.make_certificates([])
        try:
            plane.start()
            yield Cluster(plane)
        finally:
            plane.stop()


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without volumes and claims, before and after."""
    cluster.clear()
    yield cluster
    cluster.clear()
