# SPDX-License-Identifier: GPL-3.0-or-later
"""volume_dirs on disks that the tests mount, in a mount namespace of their own; as root."""

from __future__ import annotations

from tests.import_name import register

register()
