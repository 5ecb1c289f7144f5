# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the scenario; those of tests/integration."""

from __future__ import annotations

from tests.long_tier import pytest_addoption, pytest_collection_modifyitems, pytest_configure

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]
