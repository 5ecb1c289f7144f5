# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the wanted mounts mean for fstab, and what fstab means for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_input import Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount


def conflict(item: Wanted, fstab: Sequence[_fstab.Line]) -> str | None:
    """Return why an item cannot have its line: fstab mounts something else there."""
    if not item.in_fstab:
        return None
    for entry in _fstab.entries_at(fstab, item.path):
        if not entry.is_nfs:
            return (
                f"{_fstab.FSTAB} mounts {entry.source} ({entry.fstype}) at {item.path}: "
                "remove that line or choose another path"
            )
    return None


def keeps_trigger(trigger: Mount, item: Wanted, fstab: Sequence[_fstab.Line]) -> bool:
    """Tell whether systemd keeps this trigger because of an NFS line in fstab."""
    return (
        trigger.fstype == "autofs"
        and trigger.source.startswith("systemd")
        and any(
            entry.is_nfs and "x-systemd.automount" in entry.options for entry in _fstab.entries_at(fstab, item.path)
        )
    )


def new_fstab(lines: Sequence[_fstab.Line], items: Iterable[Wanted]) -> list[_fstab.Line]:
    """Return fstab as the items want it."""
    result = list(lines)
    for item in items:
        if item.in_fstab is True:
            result = _fstab.with_entry(result, item.entry)
        elif item.in_fstab is False:
            result = _fstab.without_entry(result, item.path)
    return result


def words(lines: Sequence[_fstab.Line], item: Wanted) -> list[str]:
    """Return what changes in fstab for an item, for a person."""
    before = _fstab.render(lines)
    if _fstab.render(new_fstab(lines, [item])) == before:
        return []
    if not item.in_fstab:
        return [f"remove its line from {_fstab.FSTAB}"]
    there = any(entry.is_nfs for entry in _fstab.entries_at(lines, item.path))
    return [f"{'change' if there else 'add'} its line in {_fstab.FSTAB}"]
