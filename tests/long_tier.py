# SPDX-License-Identifier: GPL-3.0-or-later
"""The option --long and the mark of what runs only with it: hooks for a conftest.py to import."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the long tier")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: long tier: large counts, long drills, every version")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        chosen = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
