# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times and lengths of time, as the API, our own files and people write them."""

from __future__ import annotations

import calendar
import datetime
import re
import time

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> float:
    """Raises ValueError when this is no timestamp."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def seconds_since(timestamp: str | None, now: float) -> float | None:
    """Age of a time of the API (RFC 3339); None if there is none."""
    if not timestamp:
        return None
    try:
        return now - datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def duration(text: str) -> int:
    """Seconds of C(90s), C(15m), C(12h), C(30d), C(2w), or of several of them in a row."""
    parts = re.findall(r"([0-9]+)([smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a length of time; write for example 12h, 30d or 1d12h')
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"
