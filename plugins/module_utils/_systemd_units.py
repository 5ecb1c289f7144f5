# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How systemd names what it makes of fstab, and how it writes times (systemd.unit(5), systemd.time(7)). Pure."""

from __future__ import annotations

import re

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")
_UNITS = {"": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60}
_UNITS.update({"h": 3600, "hr": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400})


def unit_of(path: str, suffix: str) -> str:
    """Return the unit of a mount point, as `systemd-escape --path` does ("/srv/a b" and "mount": srv-a\\x20b.mount)."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return f"-.{suffix}"
    name = ""
    for number, part in enumerate(parts):
        name += "-" if number else ""
        for position, byte in enumerate(part.encode("utf-8", "surrogateescape")):
            hidden = byte == ord(".") and number == 0 and position == 0
            name += chr(byte) if byte in _PLAIN and not hidden else f"\\x{byte:02x}"
    return f"{name}.{suffix}"


def seconds(text: str) -> int | None:
    """Return a time span in seconds; 0 for "infinity" and 0, which both mean never; None if it is not a simple one."""
    if text == "infinity":
        return 0
    found = re.fullmatch(r"([0-9]+) ?([a-z]*)", text)
    if found is None or found.group(2) not in _UNITS:
        return None
    return int(found.group(1)) * _UNITS[found.group(2)]
