# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `ansible_collections.clusterkit.storage` mean this checkout, wherever it lies."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

from hypothesis import settings

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
