# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup and restore of volumes with the real rsync and restic, on disks that the tests mount; as root."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
runpy.run_path(str(ROOT / "tests/unit/conftest.py"))  # the import name of the collection
