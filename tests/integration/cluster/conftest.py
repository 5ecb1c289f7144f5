# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane of its own for tests of the API: no machines, so that it is there within seconds."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import binaries
from lab.control_plane import ControlPlane, Ports
from lab.settings import pins

from .cluster import Cluster


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
