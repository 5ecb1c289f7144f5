# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers for the tests, of one Debian suite or, in the long tier, of every one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.server_tree import server_tree
from lab.settings import pins

from .chroot import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="10,000 files, and every Debian suite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite" in metafunc.fixturenames:
        suites = pins()["debian"]
        metafunc.parametrize("suite", suites if metafunc.config.getoption("--long") else suites[:1], scope="session")


@pytest.fixture(scope="session")
def tree(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the suite's file system for this session."""
    root = tmp_path_factory.mktemp(suite) / "root"
    shutil.copytree(server_tree(suite), root, symlinks=True)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def server(tree: Path) -> Server:
    return Server(tree)
