# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract of a role says about its defaults is what the role really takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted((ROOT / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_contract(role: Path) -> None:
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
    assert all(name.startswith(f"{role.name}_") for name in options)


def test_no_template_takes_a_method_of_a_dict_for_a_key() -> None:
    """In Jinja `item.values` is the method, whatever keys the dict has."""
    methods = "|".join(name for name in dir(dict) if not name.startswith("_"))
    wrong = re.compile(rf"(?<!builtin)\.({methods})\b(?! *\()")
    files = [file for folder in ("roles", "playbooks") for file in (ROOT / folder).rglob("*.yml")]
    assert files
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if wrong.search(line.partition(" # ")[0])
    ]
    assert found == []
