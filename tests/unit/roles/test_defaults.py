# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract of a role says about its defaults is what the role really takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROLES = sorted((Path(__file__).resolve().parents[3] / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_contract(role: Path) -> None:
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
    assert all(name.startswith(f"{role.name}_") for name in options)
