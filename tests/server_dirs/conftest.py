# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything here mounts: in a mount namespace that ends with the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _beneath
from ansible_collections.clusterkit.storage.tests.server_disk import World, mount


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="races of a minute, kills at 500 points")


@pytest.fixture(scope="session", autouse=True)
def namespace() -> None:
    if os.geteuid():
        raise pytest.UsageError("these tests mount file systems: run them as root")
    os.unshare(os.CLONE_NEWNS)
    mount("--make-rprivate", "/")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to open what lies below: by the kernel's own rules, and step by step."""
    kernel = _beneath.kernel()
    offers = kernel.openat2
    if request.param == "walk":
        kernel.openat2 = False
    else:
        assert offers, "this kernel has no openat2"
    yield request.param
    kernel.openat2 = offers
