# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles, playbooks and guides say about variables is true, and their examples are accepted."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils._argument_specs import Spec
from ansible_collections.clusterkit.storage.tests.documentation import MODULES, ROLES, ROOT, documentation, role_options

# Kept for what releases and removes volumes.
NOT_USED_YET = {"k8s_storage_protected_namespaces"}

PLAYBOOKS = sorted(ROOT.glob("playbooks/*.yml"))
PLAYBOOK_CODE = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("playbooks/**/*.j2")]
GUIDES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")])
EXAMPLES = [
    pytest.param(path, block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in GUIDES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))
]
INVENTORY = [pytest.param(path, path.read_text(), id=path.name) for path in ROOT.glob("inventory/**/*.yml")]


def keys(options: dict[str, Any]) -> Iterator[str]:
    for name, option in options.items():
        yield name
        yield from keys(option.get("options", option.get("suboptions", {})))


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_and_key_is_used(role: str) -> None:
    code = [*ROOT.glob(f"roles/{role}/[tv]*/**/*.*"), *ROOT.glob("plugins/**/*.py")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text() for path in code)))
    assert set(keys(role_options(role))) - words - NOT_USED_YET == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_in_use_is_documented(role: str) -> None:
    code = [*ROOT.glob(f"roles/{role}/[tv]*/**/*.*"), *PLAYBOOK_CODE]
    used = {name for path in code for name in re.findall(rf"(?<![\w.]){role}_\w+", path.read_text())}
    assert used - set(role_options(role)) == set()


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_a_playbook_says_what_it_is_for_and_how_it_is_called(playbook: Path) -> None:
    header = playbook.read_text().partition("\n- name:")[0]
    assert re.search(
        rf"^#   ansible-playbook -i inventory clusterkit\.storage\.{playbook.stem}\b", header, re.MULTILINE
    )
    for line in header.splitlines()[2:]:
        assert not line or line.startswith("#")


PLAYBOOK_VARIABLE = rf"(?:storage|{'|'.join(path.stem for path in PLAYBOOKS)})_[a-z_]+"


def variables_of_headers() -> set[str]:
    lists = [
        line
        for path in PLAYBOOKS
        for line in re.findall(r"^#   (?!ansible-playbook).*", path.read_text(), re.MULTILINE)
    ]
    return {found for line in lists for found in re.findall(rf"(?<!\w)({PLAYBOOK_VARIABLE})\b", line)}


def test_every_variable_of_the_playbooks_is_in_a_header() -> None:
    name, said = PLAYBOOK_VARIABLE, variables_of_headers()
    used = {found for path in PLAYBOOK_CODE for found in re.findall(rf"(?<![\w.^'/])({name})\b", path.read_text())}
    for path in ROOT.glob("plugins/module_utils/*.py"):
        used |= set(re.findall(rf"\"({name})\"", path.read_text()))
    names = {*MODULES, *(path.stem for path in ROOT.glob("plugins/filter/*"))}
    names |= {key for role in ROLES for key in keys(role_options(role))}
    names |= {key for module in MODULES for key in keys(documentation(module)["options"])}
    assert used - names - said == set()
    assert said - used == set()


def test_the_page_of_every_variable_has_those_of_the_headers_and_no_tag(tmp_path: Path) -> None:
    page = tmp_path / "variables.md"
    argv = [sys.executable, str(ROOT / "scripts/role_tables.py"), "--page", str(page)]
    subprocess.run(argv, check=True, timeout=60)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", page.read_text().partition("## Role")[0], re.MULTILINE)
    # Those of roles stand in the headers of playbooks that heed them, too.
    of_roles = {key for role in ROLES for key in keys(role_options(role))}
    assert {name for name, _playbook, _meaning in rows} - of_roles == variables_of_headers() - of_roles
    assert all(len(meaning) > 10 for _name, _playbook, meaning in rows)
    assert {playbook for _name, playbook, _meaning in rows} <= {path.stem for path in PLAYBOOKS}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


@pytest.mark.parametrize(("path", "text"), [*EXAMPLES, *INVENTORY])
def test_an_example_is_what_roles_and_modules_take(path: Path, text: str) -> None:
    content = [part for part in yaml.safe_load_all(text) if part is not None]
    for item in objects(content):
        for role in ROLES:
            given = {name: value for name, value in item.items() if str(name).startswith(f"{role}_")}
            assert Spec(role_options(role)).check(given)[1] == [], path
        for module in MODULES:
            arguments = item.get(f"clusterkit.storage.{module}")
            if isinstance(arguments, dict):
                assert set(arguments) <= set(documentation(module)["options"])


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= len(ROLES) + 1


# Tags ------------------------------------------------------------------------------------------------------


def plays(playbook: Path, tags: frozenset[str] = frozenset()) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Every play with the tags that it gets, its own and those of what imports it."""
    for play in yaml.safe_load(playbook.read_text()):
        own = tags | set(play.get("tags", []))
        if "ansible.builtin.import_playbook" in play:
            yield from plays(playbook.parent / play["ansible.builtin.import_playbook"], own)
        else:
            yield play, own


def tags_of_header(playbook: Path) -> set[str]:
    header = playbook.read_text().partition("\n- name:")[0]
    section = re.search(r"^# Tags,.*\n((?:#   .*\n)+)", header, re.MULTILINE)
    return set(re.findall(r"^#   (\w+)  ", section[1], re.MULTILINE)) if section else set()


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_the_tags_of_a_playbook_are_those_that_it_documents(playbook: Path) -> None:
    found = {tag for _play, tags in plays(playbook) for tag in tags} - {"always"}
    assert tags_of_header(playbook) == found
    operations = (ROOT / "docs/operations.md").read_text()
    assert all(f"`--tags {tag}`" in operations or f"`{tag}`" in operations for tag in found)


def test_each_part_of_the_site_has_one_tag_and_refuses_without_checked_inputs() -> None:
    """With whatever tags it is called or told to skip: the check comes first, or nothing is done."""
    seen: list[str] = []
    begun = set()
    for play, tags in plays(ROOT / "playbooks/site.yml"):
        if "always" in tags:
            assert tags == {"always", "inputs"}
            assert not seen, "the check comes first"
            continue
        assert len(tags) == 1
        (tag,) = tags
        seen.append(tag)
        if tag not in begun:
            first = (play.get("pre_tasks") or play["tasks"])[0]
            assert first["ansible.builtin.import_tasks"] == "../tasks/checked.yml"
            assert "tags" not in first and "when" not in first
        begun.add(tag)
    assert list(dict.fromkeys(seen)) == ["servers", "nodes", "cluster", "verify"]
    (guard,) = yaml.safe_load((ROOT / "playbooks/tasks/checked.yml").read_text())
    assert "tags" not in guard and "when" not in guard
