# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans are kept, approved and run later: they must be complete, and must not change unnoticed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _plan


def make(steps: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    step = {
        "item": "pv",
        "precondition": {"uid": "u", "resource_version": "1"},
        "before": "",
        "after": "",
        "reason": "",
    }
    given = {"cluster_uid": "c", "listed_at": "t", "request": {"policy": "Retain"}, "refusals": [], "unchanged": 0}
    return _plan.make("reclaim", steps=[step] if steps is None else steps, **{**given, **more})


@pytest.mark.parametrize("precondition", [{}, None, {"uid": "u", "resource_version": ""}, {"uid": None}])
def test_no_step_without_a_precondition(precondition: Any) -> None:
    with pytest.raises(ValueError, match="no precondition"):
        make([{"item": "pv", "precondition": precondition}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no plan"),
        ("[]", "is no plan"),
        ("{}", "is no plan"),
        (json.dumps(make() | {"schema": 2}), "has schema 2; expected 1"),
        (json.dumps(make() | {"steps": []}), "was edited"),
        (json.dumps(make() | {"request": {"policy": "Delete"}}), "was edited"),
        (json.dumps(make() | {"action": "expand"}), "is a plan to expand"),
    ],
)
def test_what_is_no_plan_or_not_the_approved_one_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _plan.read(text, "reclaim")


@pytest.mark.parametrize(
    ("max_changes", "total", "allowed"),
    [
        (None, 10, None),
        ("", 10, None),
        ("0", 10, 0),
        (5, 10, 5),
        ("10%", 101, 11),
        ("10%", 3, 1),
        ("0%", 100, 1),
        ("100%", 7, 7),
    ],
)
def test_limit_is_a_count_or_percent_rounded_up(max_changes: Any, total: int, allowed: int | None) -> None:
    assert _plan.limit(max_changes, total) == allowed


@pytest.mark.parametrize("wrong", ["ten", "-1", "10 %", "1e3", "5%%"])
def test_wrong_limits_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="neither a count nor percent"):
        _plan.limit(wrong, 10)


def test_nothing_is_done_above_the_limit() -> None:
    assert _plan.over_limit(2, "2", 0) == ""
    assert "3 volumes would be changed" in _plan.over_limit(3, "2", 0)
    assert "which is 1 of 10 volumes" in _plan.over_limit(2, "10%", 10)


def test_long_plans_are_cut_in_the_table_only() -> None:
    many = [
        {"item": f"pv-{n}", "precondition": {"uid": "u"}, "before": "b", "after": "a", "reason": "r"}
        for n in range(100)
    ]
    made = make(many, refusals=[{"item": "x", "reason": "is Bound"}])
    shown = _plan.table(made)
    assert shown[0].endswith("100 to change, 0 as wanted, 1 refused")
    assert "... and 60 more" in shown
    assert "  x: is Bound" in shown
    assert len(_plan.read(_plan.write(made))["steps"]) == 100
