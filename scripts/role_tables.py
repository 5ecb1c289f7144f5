# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the tables of variables in the READMEs of the roles from meta/argument_specs.yml.

With --check nothing is written; the status is 1 if a README is not what it would be. With --page FILE one page of all
variables is written instead, those of the playbooks from their header comments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- variables: written by `make docs-tables` -->", "<!-- end of variables -->"
Options = dict[str, dict[str, Any]]
NAME = r"([a-z0-9]+_[a-z0-9_]+)(?: \(([^)]*)\))?"  # of a variable, in the header of a playbook


def plain(text: str) -> str:
    """Ansible's markup as Markdown: what stands in V(), O(), M() and so on is code."""
    text = re.sub(r"\b(?:C|V|O|RV|E|M|P)\(([^)]*?)(?:#\w+)?\)", r"`\1`", text)
    return re.sub(r"\bL\(([^,)]*), *([^)]*)\)", r"[\1](\2)", text)


def description(option: dict[str, Any]) -> str:
    said = option["description"]
    words = plain(" ".join([said] if isinstance(said, str) else said))
    if option.get("choices"):
        words += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    return words.replace("|", "\\|")


def kind(option: dict[str, Any]) -> str:
    return f"list of {option['elements']}" if option["type"] == "list" else str(option["type"])


def default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`" if not isinstance(value, str) or value else '`""`'


def table(options: Options, head: str) -> Iterator[str]:
    yield f"| {head} | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, option in options.items():
        yield f"| `{name}` | {kind(option)} | {default(option)} | {description(option)} |"


def tables(options: Options, level: int) -> Iterator[str]:
    """The variables of a role, then the keys of each that holds dictionaries."""
    yield from table(options, "variable")
    pending = list(options.items())
    while pending:
        name, option = pending.pop(0)
        inner: Options = option.get("options", {})
        if inner:
            yield from ("", f"{'#' * level} Keys of `{name}`", "", *table(inner, "key"))
            pending[:0] = [
                (f"{name}[].{key}" if option["type"] == "list" else f"{name}.{key}", o) for key, o in inner.items()
            ]


def specs(role: Path) -> Options:
    content = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    options: Options = content["argument_specs"]["main"]["options"]
    return options


def readme(role: Path) -> str:
    text = (role / "README.md").read_text()
    before, found, rest = text.partition(BEGIN)
    _old, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{role}/README.md has no place for the variables: {BEGIN} … {END}")
    return "\n".join([before + BEGIN, "", "## Variables", "", *tables(specs(role), 3), "", END + after])


def variables_of_header(playbook: Path) -> Iterator[tuple[str, str]]:
    """Each variable of a header comment with its meaning; those "as in" another playbook are left to that one."""
    header = playbook.read_text().partition("\n- name:")[0]
    for lead, block in re.findall(r"^# (\S.*)\n((?:#   .*\n?)+)", header, re.MULTILINE):
        if lead.startswith("Tags"):
            continue
        for names, words in re.findall(r"^#   (\S.*?)(?: {2,}(\S.*))?$", re.sub(r"\n# {8,}", " ", block), re.MULTILINE):
            if words.startswith("as in ") or not re.fullmatch(rf"{NAME}(?:, {NAME})*,?", names):
                continue
            for name, example in re.findall(NAME, names):
                # A list of mere names: what is above it is said of each.
                meaning = words or re.split("[,;:]", lead)[0] + (f" ({example})" if example else "")
                yield name, meaning.rstrip(":")


def playbook_variables() -> Iterator[str]:
    """The variables in the header comments of the playbooks, each once."""
    yield from ("| variable | playbook | meaning (default) |", "|---|---|---|")
    seen = set()
    for playbook in sorted((ROOT / "playbooks").glob("*.yml")):
        for name, meaning in variables_of_header(playbook):
            if name not in seen:
                seen.add(name)
                yield f"| `{name}` | {playbook.stem} | {meaning} |"


def page(roles: list[Path]) -> str:
    lines = ["# Every variable", "", "## Playbooks", "", *playbook_variables()]
    for role in roles:
        lines += ["", f"## Role {role.name}", "", *tables(specs(role), 3)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--page", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    roles = sorted((ROOT / "roles").iterdir())
    if arguments.page:
        arguments.page.write_text(page(roles))
        return 0
    wanted = {role / "README.md": readme(role) for role in roles}
    stale = [path for path, text in wanted.items() if path.read_text() != text]
    if not arguments.check:
        for path in stale:
            path.write_text(wanted[path])
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the argument specs say: run `make docs-tables`")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
