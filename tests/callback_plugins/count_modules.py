# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the modules that a playbook executes on each host, and note what it changes, or says that it would."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: count_modules
type: aggregate
short_description: Append a line `host module` for each module execution to the file $COUNT_MODULES_FILE
description:
  - Counts on the controller, where action plugins call modules; loop items count one by one.
  - Each changed task becomes a line of JSON in the file `changed-check` or `changed-run` beside it. A run in check mode
    empties both.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core is untyped here
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "count_modules"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note a change, with the items that it is about."""
        if not result.result.get("changed"):
            return
        line = json.dumps(
            {"host": result.host.get_name(), "task": result.task.get_name(), "items": changed_items(result.result)}
        )
        with _changes(check=context.CLIARGS["check"]).open("a") as stream:
            stream.write(f"{line}\n")

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ARG002 (Ansible's signature)
        """Wrap the one place where every action plugin runs a module; workers are forked afterwards."""
        target = Path(os.environ["COUNT_MODULES_FILE"])
        target.write_text("")
        if context.CLIARGS["check"]:
            _changes(check=True).write_text("")
            _changes(check=False).write_text("")
        original = ActionBase._execute_module

        def counted(action: Any, *arguments: Any, **named: Any) -> Any:
            name = named.get("module_name") or (arguments[0] if arguments else None) or action._task.action
            host = (named.get("task_vars") or {}).get("inventory_hostname", "?")
            with target.open("a") as stream:
                stream.write(f"{host} {name}\n")
            return original(action, *arguments, **named)

        ActionBase._execute_module = counted


def changed_items(result: dict[str, Any]) -> list[str]:
    """Paths of directories, exports and mounts; objects of the cluster, also those that a message names."""
    lists = [item for name in ("directories", "exports", "mounts") for item in result.get(name) or []]
    found = [item["path"] for item in lists if item.get("changed")]
    applied = result["result"] if isinstance(result.get("result"), dict) else {}
    for one in applied.get("results") or []:
        if one.get("changed"):
            metadata = one["result"]["metadata"]
            name = "/".join(filter(None, [metadata.get("namespace"), metadata["name"]]))
            found.append(f"{one['result']['kind']} {name}")
    if isinstance(result.get("msg"), str) and "Would be made" in result["msg"]:
        found += result["msg"].rpartition(": ")[2].strip().split(", ")
    return found


def _changes(*, check: bool) -> Path:
    return Path(os.environ["COUNT_MODULES_FILE"]).with_name("changed-check" if check else "changed-run")
