# SPDX-License-Identifier: GPL-3.0-or-later
"""How many examples a property test takes."""

from __future__ import annotations

from hypothesis import settings


def examples(usual: int) -> settings:
    """C(usual) examples where others take 100; the profile of the run (tests/unit/conftest.py) has more or fewer."""
    return settings(max_examples=max(1, usual * settings().max_examples // 100))
