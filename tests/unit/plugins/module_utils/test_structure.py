# SPDX-License-Identifier: GPL-3.0-or-later
"""What may import what: no circles, nothing of the lab, and every dangerous variable on one page."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

from ansible_collections.clusterkit.storage.tests.documentation import ROOT

OURS = "ansible_collections.clusterkit.storage.plugins.module_utils"


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_module_utils_do_not_import_each_other_in_circles() -> None:
    files = {path.stem: path for path in ROOT.glob("plugins/module_utils/*.py")}
    graph = {
        name: {each.removeprefix(f"{OURS}.") for each in imports(path) if each.startswith(f"{OURS}.")} & set(files)
        for name, path in files.items()
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(files)


def test_nothing_that_users_get_imports_from_the_lab_or_from_tests() -> None:
    for path in ROOT.glob("plugins/**/*.py"):
        assert not {name.partition(".")[0] for name in imports(path)} & {"lab", "tests", "benchmarks", "molecule"}, path


def test_every_variable_that_allows_something_dangerous_is_on_one_page() -> None:
    page = (ROOT / "docs/security.md").read_text()
    sources = [*ROOT.glob("roles/*/meta/argument_specs.yml"), *ROOT.glob("playbooks/*.yml")]
    allowing = {name for path in sources for name in re.findall(r"\b[a-z0-9]+_\w*allow_\w+", path.read_text())}
    assert {name for name in allowing if f"`{name}`" not in page} == set()
