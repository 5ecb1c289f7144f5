# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules in a process of their own, or in that of the test; and what their documentation says of their arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.parameters import PASS_VARS
from ansible_collections.clusterkit.storage.tests.documentation import ROOT, contradictions


def documented(options: dict[str, Any]) -> dict[str, Any]:
    spec = {}
    for name, option in options.items():
        spec[name] = {key: value for key, value in option.items() if key not in ("description", "suboptions")}
        if "suboptions" in option:
            spec[name]["options"] = documented(option["suboptions"])
    return spec


def differing_options(documented: dict[str, Any], existing: dict[str, Any], place: str = "") -> list[str]:
    """What the documentation says otherwise than the argument specification."""
    found = [f"{place}{name}" for name in set(documented) ^ set(existing)]
    for name in set(documented) & set(existing):
        said, option = documented[name], existing[name]
        keys = ("type", "elements", "default", "required", "choices")
        found += [f"{place}{name}: {key}" for key in keys if said.get(key) != option.get(key)]
        found += differing_options(said.get("suboptions", {}), option.get("options", {}), f"{place}{name}.")
    return sorted(found)


def run_here(
    module: ModuleType,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    check_mode: bool = False,
) -> tuple[dict[str, Any], str]:
    """The result of a module, and all that it printed."""
    given = {"_ansible_check_mode": check_mode, **arguments}
    if "inject_invocation" in PASS_VARS:  # since ansible-core 2.21 the arguments are told on request only
        given["_ansible_inject_invocation"] = True
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
    with pytest.raises(SystemExit):
        module.main()
    output = capsys.readouterr().out
    return json.loads(output), output


def execute(module: str, **arguments: Any) -> dict[str, Any]:
    """Run a module in a process of its own, as a managed host does."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.import_name import register; register()\n"
        "from ansible.module_utils import basic\n"
        "basic._ANSIBLE_ARGS = sys.argv[3].encode()\n"
        "basic._ANSIBLE_PROFILE = 'legacy'\n"
        "import importlib\n"
        "importlib.import_module('ansible_collections.clusterkit.storage.plugins.modules.' + sys.argv[2]).main()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), module, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.stdout, finished.stderr
    result = json.loads(finished.stdout)
    assert (finished.returncode == 0) == (not result.get("failed"))
    assert contradictions(module, result) == []
    return dict(result)
