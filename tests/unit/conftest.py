# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `ansible_collections.clusterkit.storage` mean this checkout, wherever it lies."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.tests.api_server import Cluster

ROOT = Path(__file__).resolve().parents[2]


def _package(name: str, path: Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module


# ansible-test brings a loader of its own.
if "ansible_pytest_collections" not in sys.modules:
    if importlib.util.find_spec("ansible_collections") is None:
        _package("ansible_collections", ROOT)
    _package("ansible_collections.clusterkit", ROOT)
    _package("ansible_collections.clusterkit.storage", ROOT)

# A busy machine is not a failed test.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def served() -> Iterator[Cluster]:
    """The API of a small cluster, one for all tests: whoever takes it clears it first."""
    from ansible_collections.clusterkit.storage.tests.api_server import serving

    with serving() as cluster:
        yield cluster


@pytest.fixture
def cluster(served: Cluster) -> Cluster:
    """The same, and nothing in it."""
    served.clear()
    return served
