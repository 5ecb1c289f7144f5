# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths as text: which lies in which."""

from __future__ import annotations

import bisect
import posixpath
from collections.abc import Sequence


def plain(path: str) -> str:
    """One spelling for each path without C(..): no empty parts, no dots, no slash at the end."""
    return "/" + posixpath.normpath(path).lstrip("/")


def covers(above: str, path: str) -> bool:
    """Whether C(path) is C(above) or lies in it."""
    above = above.rstrip("/")
    return path == (above or "/") or path.startswith(f"{above}/")


def first_below(paths: Sequence[str], directory: str) -> str | None:
    """Return the first of sorted paths that lies strictly below a directory."""
    above = directory.rstrip("/") + "/"
    place = bisect.bisect_left(paths, above)
    if place < len(paths) and paths[place].startswith(above):
        return paths[place]
    return None
