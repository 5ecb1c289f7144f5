# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.tests.api_server import Cluster

if "ansible_pytest_collections" not in sys.modules:  # ansible-test brings a loader of its own
    from tests.import_name import register

    register()

# A busy machine is not a failed test, and what passed once passes again: each run takes the same examples.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
# The long tier looks for new ones.
settings.register_profile("search", deadline=None, derandomize=False, max_examples=1500)
# ansible-test asks only whether the code does the same on another ansible-core.
settings.register_profile("ansible-test", settings.get_profile("project"), max_examples=10)
# Mutation testing (scripts/mutants) wants to know that an example fails, not which is the smallest.
settings.register_profile("mutants", deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("ansible-test" if "ansible_pytest_collections" in sys.modules else "project")


def pytest_collection_finish() -> None:
    """ansible-test forks for each test: no child is to look through, and so copy, all that was imported before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def served() -> Iterator[Cluster]:
    """The API of a small cluster, one for all tests: whoever takes it clears it first."""
    from ansible_collections.clusterkit.storage.tests.api_server_http import serving

    with serving() as cluster:
        yield cluster


@pytest.fixture
def cluster(served: Cluster) -> Cluster:
    """The same, and nothing in it."""
    served.clear()
    return served
