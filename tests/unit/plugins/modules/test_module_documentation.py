# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules say about themselves is complete, and true."""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _directories,
    _export_list,
    _export_options,
    _inputs,
    _mount_input,
    _nfs_probe,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import API_ARGUMENTS, AUTH_ARG_SPEC
from ansible_collections.clusterkit.storage.tests.documentation import (
    MODULES,
    ROLES,
    ROOT,
    contradictions,
    documentation,
    examples,
    role_options,
)

GROUPS: dict[str, list[str]] = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
PLUGIN_DOCS = sorted([*ROOT.glob("plugins/modules/*.py"), *ROOT.glob("plugins/filter/*.yml")])


def argument_spec(module: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module hands to AnsibleModule, with what ApiModule adds."""

    class SeenError(Exception):
        pass

    def see(argument_spec: dict[str, Any], **_more: Any) -> None:
        raise SeenError(argument_spec)

    code = importlib.import_module(f"ansible_collections.clusterkit.storage.plugins.modules.{module}")
    talks_to_api = hasattr(code, "ApiModule")
    monkeypatch.setattr(code, "ApiModule" if talks_to_api else "AnsibleModule", see)
    with pytest.raises(SeenError) as seen:
        code.main()
    access = {**AUTH_ARG_SPEC, **API_ARGUMENTS} if talks_to_api else {}
    # A validator writes into the defaults of the specification that it is given.
    return copy.deepcopy({**access, **seen.value.args[0]})


def templated(value: Any, option: dict[str, Any]) -> Any:
    """An example's value as a run would see it, as far as its type goes."""
    if isinstance(value, str) and value.startswith("{{") and value.endswith("}}"):
        return {"list": [], "dict": {}, "int": 1, "bool": True}.get(option.get("type", "str"), "text")
    inner = option.get("options", {})
    if isinstance(value, dict):
        return {key: templated(item, inner.get(key, {"type": _likely(key)})) for key, item in value.items()}
    if isinstance(value, list):
        return [templated(item, {**option, "type": option.get("elements", "str")}) for item in value]
    return value


def _likely(variable: str) -> str:
    """The type of a role's variable."""
    return str(next((role_options(r)[variable]["type"] for r in ROLES if variable in role_options(r)), "str"))


@pytest.mark.parametrize("module", MODULES)
def test_attributes_are_complete(module: str) -> None:
    doc = documentation(module)
    for name in ("check_mode", "diff_mode", "idempotent", "platform"):
        attribute = doc["attributes"].get(name, {})
        assert attribute.get("description"), name
        assert attribute.get("support") in ("full", "partial", "none", "N/A"), name
        assert attribute["support"] not in ("partial", "none") or attribute.get("details"), f"{name}: say why"
    assert doc["attributes"]["platform"]["platforms"]
    assert doc["seealso"], "name what belongs to it"
    assert doc["version_added"]
    assert re.fullmatch(r".+ \(@\w+\)", doc["author"][0])


def test_action_groups_are_complete_sorted_and_said_in_the_documentation() -> None:
    said = {module: documentation(module)["attributes"].get("action_group", {}).get("membership") for module in MODULES}
    for group, members in GROUPS.items():
        assert members == sorted(members)
        assert members == [module for module in MODULES if said[module] == [f"clusterkit.storage.{group}"]], group


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_arguments_that_the_module_takes(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = argument_spec(module, monkeypatch)
    own = [task for task in examples(module) if f"clusterkit.storage.{module}" in task]
    assert own, "no example of the module itself"
    for task in own:
        assert task["name"][0].isupper()
        arguments = templated(task[f"clusterkit.storage.{module}"] or {}, {"options": spec})
        result = ArgumentSpecValidator(spec).validate(arguments)
        assert not result.error_messages, task["name"]
        assert problems(module, result.validated_parameters) == [], task["name"]


def problems(module: str, arguments: dict[str, Any]) -> list[str]:
    """What the module itself would refuse, before it looks at the host."""
    if module == "nfs_directories":
        return _directories.list_problems(arguments["directories"])
    if module == "nfs_exports":
        return _export_list.read_list(arguments["exports"], allow_world=False, dialect=_export_options.NEWEST)[1]
    if module == "nfs_mounts":
        return _mount_input.read_input(arguments["mounts"])[1]
    if module == "nfs_probe":
        return _nfs_probe.read_input(arguments["targets"])[1]
    if module == "storage_inputs":
        checked = _inputs.check(**{**arguments, "specs": {role: role_options(role) for role in ROLES}})
        return [str(problem) for problem in checked["problems"]]
    return []


@pytest.mark.parametrize("path", PLUGIN_DOCS, ids=lambda path: path.stem)
def test_names_of_this_collection_in_plugin_documentation_exist(path: Path) -> None:
    filters = {file.stem for file in ROOT.glob("plugins/filter/*.yml")}
    playbooks = {file.stem for file in ROOT.glob("playbooks/*.yml")}
    fragments = {file.stem for file in ROOT.glob("plugins/doc_fragments/*.py")}
    for name in re.findall(r"\bclusterkit\.storage\.([a-z]\w*)", path.read_text()):
        assert name in {*MODULES, *ROLES, *GROUPS, *filters, *playbooks, *fragments, "plugins"}


def test_a_result_that_is_not_as_documented_is_seen() -> None:
    good = {"server": "nfs1", "path": "/a", "options": [], "read_only": False, "ok": True, "msg": "", "seconds": 0.1}
    assert contradictions("nfs_probe", {"targets": [good], "changed": False}) == []
    wrong = {"targets": [{**good, "ok": "yes", "seconds": True, "options": [1], "more": 1}], "hosts": []}
    assert contradictions("nfs_probe", wrong) == [
        "nfs_probe.targets.options holds int, not str",
        "nfs_probe.targets.ok is str, not bool",
        "nfs_probe.targets.seconds is bool, not float",
        "nfs_probe.targets.more is not documented",
        "nfs_probe.hosts is not documented",
    ]
    assert "nfs_exports.withdrawn is missing" in contradictions("nfs_exports", {"changed": False})
