# SPDX-License-Identifier: GPL-3.0-or-later
"""Many lines are parsed at once, and it comes to the same as one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _json_lines
from ansible_collections.clusterkit.storage.tests.properties import examples
from hypothesis import given
from hypothesis import strategies as st

values = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda one: st.lists(one, max_size=3))


@given(st.lists(values, max_size=20), st.integers(1, 7))
@examples(100)
def test_each_line_is_a_value(there: list[Any], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_lines, "_BATCH", size)
        assert list(_json_lines.read(f"{json.dumps(one)}\n" for one in there)) == there


@pytest.mark.parametrize("bad", ["1, 2", "[1", "", "no json", '{"a": 1'])
def test_what_comes_before_a_bad_line_is_read(bad: str) -> None:
    read = _json_lines.read([*(f"{number}\n" for number in range(700)), f"{bad}\n", "701\n"])
    assert [next(read) for _number in range(700)] == list(range(700))
    with pytest.raises(ValueError, match=r"Extra data|Expecting|delimiter"):
        next(read)
