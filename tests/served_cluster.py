# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated cluster whose volumes lie in a real directory, for tests of modules that work on both."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.clusterkit.storage.tests.api_server import Cluster
from ansible_collections.clusterkit.storage.tests.server_disk import World
from ansible_collections.clusterkit.storage.tests.shares import HOST


class Served:
    """A server with a share, and a cluster that has its volumes in it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        (folder / "server").mkdir()
        self.world = World(folder / "server", mounts=False)
        self.uid = cluster.get("namespaces", "kube-system")["metadata"]["uid"]
        share = {"server_path": str(self.world.share), "client_path": "/nfs/k8s"}
        self.servers = [{"name": HOST, "host": HOST, "addresses": ["192.0.2.10"], "shares": [share]}]
