# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules in processes of their own, and what their documentation says of their arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ansible_collections.clusterkit.storage.tests.documentation import ROOT, contradictions


def documented(options: dict[str, Any]) -> dict[str, Any]:
    spec = {}
    for name, option in options.items():
        spec[name] = {key: value for key, value in option.items() if key not in ("description", "suboptions")}
        if "suboptions" in option:
            spec[name]["options"] = documented(option["suboptions"])
    return spec


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
