# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup and restore of volumes with the real rsync and restic, on disks that the tests mount; as root."""

from tests.import_name import register

register()
