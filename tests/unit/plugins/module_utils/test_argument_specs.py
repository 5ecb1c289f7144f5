# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault in a list of many entries is found at its place, and all faults at once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._argument_specs import Spec

OPTIONS: dict[str, Any] = {
    "exports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "clients": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "host": {"type": "str", "required": True},
                    "options": {"type": "list", "elements": "str", "default": []},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
    "threads": {"type": "int"},
    "limits": {"type": "dict", "options": {"soft": {"type": "int", "required": True}}},
}


def faults(values: dict[str, Any]) -> list[str]:
    return [f"{fault.place}: {fault.words}" for fault in Spec(OPTIONS).check(values)[1]]


def test_all_faults_are_found_each_at_its_place() -> None:
    values = {
        "exports": [
            {"path": "/a", "clients": [{"host": "n1", "option": ["rw"]}]},
            {"clients": [{"options": "rw,sync"}], "state": "there"},
        ],
        "thread": 8,
        "threads": "many",
        "limits": {},
    }
    found = faults(values)
    assert 'thread: unknown key; did you mean "threads"?' in found
    assert 'exports[0].clients[0].option: unknown key; did you mean "options"?' in found
    assert "exports[1].path: is missing" in found
    assert "exports[1].clients[0].host: is missing" in found
    assert "limits.soft: is missing" in found
    assert any(one.startswith("exports[1].state: must be one of: present, absent") for one in found)
    assert any(one.startswith("threads: ") and "int" in one for one in found)
    assert len(found) == 7


def test_a_missing_value_names_the_item_it_is_missing_in() -> None:
    assert faults({"exports": [{"path": "/srv/data"}]}) == ['exports[0].clients: is missing in "/srv/data"']
    assert faults({"exports": [{"path": "/srv/data", "clients": None}]}) == [
        'exports[0].clients: is missing in "/srv/data"'
    ]


def test_defaults_and_types_are_applied_at_every_level() -> None:
    values, found = Spec(OPTIONS).check({"exports": [{"path": "/a", "clients": [{"host": "n", "options": "rw,sync"}]}]})
    assert found == []
    assert values == {
        "exports": [{"path": "/a", "clients": [{"host": "n", "options": ["rw", "sync"]}], "state": "present"}],
        "threads": None,
        "limits": None,
    }
    assert Spec(OPTIONS).check(values) == (values, [])


@pytest.mark.parametrize("wrong", ["text without an equals sign", 5, [["a"]], [5], {"a": 1}])
def test_the_wrong_kind_of_value_is_a_fault_and_no_crash(wrong: Any) -> None:
    assert faults({"exports": wrong})
