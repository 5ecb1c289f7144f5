# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `ansible_collections.clusterkit.storage` mean this checkout, wherever it lies."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def register() -> None:
    # The packages of Ansible may bring ansible_collections, and others below it.
    if importlib.util.find_spec("ansible_collections") is None:
        _package("ansible_collections")
    _package("ansible_collections.clusterkit")
    _package("ansible_collections.clusterkit.storage")


def _package(name: str) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(ROOT)]
    sys.modules[name] = module
