# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and groups of this host, by name or by number."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable

MAX_ID = 2**32 - 2


def user_id(name: str) -> int | None:
    """The id of a name or of a number; None when there is no such user."""
    return _id(name, lambda: pwd.getpwnam(name).pw_uid)


def group_id(name: str) -> int | None:
    return _id(name, lambda: grp.getgrnam(name).gr_gid)


def user_name(uid: int) -> str:
    """The name of an id; the number if it has none."""
    return _name(uid, lambda: pwd.getpwuid(uid).pw_name)


def group_name(gid: int) -> str:
    return _name(gid, lambda: grp.getgrgid(gid).gr_name)


def _id(name: str, look_up: Callable[[], int]) -> int | None:
    try:
        return look_up()
    except (KeyError, UnicodeError, ValueError):
        return int(name) if re.fullmatch("[0-9]+", name) and int(name) <= MAX_ID else None


def _name(number: int, look_up: Callable[[], str]) -> str:
    try:
        return look_up()
    except (KeyError, OverflowError):
        return str(number)
