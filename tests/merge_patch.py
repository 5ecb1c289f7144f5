# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server makes of a merge patch, for tests without one."""

from __future__ import annotations

from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
