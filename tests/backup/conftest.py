# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything here mounts: in a mount namespace that ends with the tests."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..integration.cluster.conftest import cluster, empty, node
from ..long_tier import pytest_addoption, pytest_collection_modifyitems, pytest_configure
from .world import World, mount

__all__ = ["cluster", "empty", "node", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]


@pytest.fixture(scope="session", autouse=True)
def namespace() -> None:
    if os.geteuid():
        raise pytest.UsageError("these tests mount file systems and make files of others: run them as root")
    os.unshare(os.CLONE_NEWNS)
    mount("--make-rprivate", "/")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return 30 if request.config.getoption("--long") else 6


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)  # noqa: S311 - chooses when to kill
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when a test fails
    return random.Random(seed)  # noqa: S311 - as above


@pytest.fixture(params=["rsync", "restic"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from _world(tmp_path, request.param)


@pytest.fixture
def rsync_world(tmp_path: Path) -> Iterator[World]:
    yield from _world(tmp_path, "rsync")


@pytest.fixture
def restic_world(tmp_path: Path) -> Iterator[World]:
    yield from _world(tmp_path, "restic")


def _world(folder: Path, engine: str) -> Iterator[World]:
    mount("-t", "tmpfs", "-o", "size=2g,mode=0755", "tmpfs", folder)
    yield World(folder, engine)
    mount_point_gone(folder)


def mount_point_gone(folder: Path) -> None:
    import subprocess

    subprocess.run(["umount", "--lazy", str(folder)], check=True)
