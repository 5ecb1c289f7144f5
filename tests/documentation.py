# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's documentation says, for tests that compare it with the truth."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}
# What Ansible adds to the result of every module; as facts, the interpreter that it discovered.
_COMMON = {
    "ansible_facts",
    "changed",
    "diff",
    "failed",
    "invocation",
    "msg",
    "skipped",
    "warnings",
    "deprecations",
    "exception",
}
# And of one that names a file as dest (AnsibleModule.add_path_info).
_OF_FILES = {"uid", "gid", "owner", "group", "mode", "state", "size", "secontext"}


def _strings(path: Path) -> dict[str, str]:
    """The strings that a Python file assigns to capital names, without running it."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    found[target.id] = node.value.value
    return found


@functools.cache
def documentation(module: str) -> dict[str, Any]:
    """DOCUMENTATION of a module, with attributes and options completed from the fragments of this collection."""
    shared = {name: _strings(ROOT / f"plugins/doc_fragments/{name}.py") for name in ("api", "backup")}
    fragments = _strings(ROOT / "plugins/doc_fragments/attributes.py")
    doc: dict[str, Any] = yaml.safe_load(_strings(ROOT / f"plugins/modules/{module}.py")["DOCUMENTATION"])
    attributes: dict[str, dict[str, Any]] = {}
    for name in doc.get("extends_documentation_fragment", []):
        if name.startswith("clusterkit.storage.attributes"):
            part = (name.split(".")[3:] or ["documentation"])[0].upper()
            for attribute, values in yaml.safe_load(fragments[part])["attributes"].items():
                attributes.setdefault(attribute, {}).update(values)
        elif name.startswith("clusterkit.storage."):
            part = (name.split(".")[3:] or ["documentation"])[0].upper()
            doc["options"] = {**yaml.safe_load(shared[name.split(".")[2]][part])["options"], **doc["options"]}
    for attribute, values in doc.get("attributes", {}).items():
        attributes.setdefault(attribute, {}).update(values)
    return {**doc, "attributes": attributes}


@functools.cache
def examples(module: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = yaml.safe_load(_strings(ROOT / f"plugins/modules/{module}.py")["EXAMPLES"])
    return tasks


@functools.cache
def returned(module: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(_strings(ROOT / f"plugins/modules/{module}.py")["RETURN"])
    return values


@functools.cache
def role_options(role: str) -> dict[str, Any]:
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


def contradictions(module: str, result: Mapping[str, Any]) -> list[str]:
    """What a real result of a module has that its RETURN does not say, or lacks that it promises.

    None stands for "not known" wherever a value is documented.
    """
    promised = returned(module)
    added = _COMMON | _OF_FILES if result.get("dest") else _COMMON
    told = {name: value for name, value in result.items() if name not in added or name in promised}
    wrong = list(_contradictions(promised, told, module))
    when = {"always"} if result.get("failed") else {"always", "success"}
    wrong += [
        f"{module}.{name} is missing"
        for name, about in promised.items()
        if about["returned"] in when and name not in result
    ]
    return wrong


def _contradictions(promised: Mapping[str, Any], told: Mapping[str, Any], place: str) -> Iterator[str]:
    for name, value in told.items():
        here = f"{place}.{name}"
        if name not in promised:
            yield f"{here} is not documented"
            continue
        about = promised[name]
        if value is None:
            continue
        kinds = _TYPES[about["type"]]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and object not in kinds):
            yield f"{here} is {type(value).__name__}, not {about['type']}"
            continue
        for item in value if isinstance(value, list) else [value]:
            if "contains" in about and isinstance(item, dict):
                yield from _contradictions(about["contains"], item, here)
            elif isinstance(value, list) and item is not None and not isinstance(item, _TYPES[about["elements"]]):
                yield f"{here} holds {type(item).__name__}, not {about['elements']}"
