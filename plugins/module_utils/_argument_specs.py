# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables checked against a role's argument specs, each fault with the exact place where it stands.

The words about types and choices are Ansible's own (ArgumentSpecValidator); it names no list index and stops
inside a faulty item, therefore each value is handed to it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean


class Fault(NamedTuple):
    place: str  # such as nfs_server_exports[3].clients[0].options
    words: str
    # An unknown key leaves the rest of its item as it is; what is missing or of the wrong type does not.
    unusable: bool = True


class Spec:
    """The options of one level: a role's variables, or the keys of a dictionary inside one."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._inner = {name: Spec(option["options"]) for name, option in options.items() if option.get("options")}
        self._validators = {name: ArgumentSpecValidator({name: _flat(option)}) for name, option in options.items()}

    @property
    def names(self) -> list[str]:
        return list(self._options)

    def check(self, values: dict[str, Any], place: str = "") -> tuple[dict[str, Any], list[Fault]]:
        """Return the values with types and defaults applied, and all faults."""
        faults = [
            Fault(
                _below(place, name),
                f"unknown key{did_you_mean(str(name), self._options) or _known(self._options)}",
                False,
            )
            for name in values
            if name not in self._options
        ]
        checked: dict[str, Any] = {}
        for name, option in self._options.items():
            value = values.get(name)
            if value is None and option.get("required"):
                faults.append(Fault(_below(place, name), f"is missing{_of(values)}"))
            elif value is None:
                checked[name] = option.get("default")
            else:
                checked[name], found = self._check_one(name, value, _below(place, name))
                faults.extend(found)
        return checked, faults

    def _check_one(self, name: str, value: Any, place: str) -> tuple[Any, list[Fault]]:
        result = self._validators[name].validate({name: value})
        if result.error_messages:
            return value, [Fault(place, _plain(message, name)) for message in result.error_messages]
        value = result.validated_parameters[name]
        inner = self._inner.get(name)
        if inner is None:
            return value, []
        if isinstance(value, dict):
            return inner.check(value, place)
        checked, faults = [], []
        for index, item in enumerate(value):
            one, found = inner.check(item, f"{place}[{index}]")
            checked.append(one)
            faults.extend(found)
        return checked, faults


def _flat(option: dict[str, Any]) -> dict[str, Any]:
    return {key: option[key] for key in ("type", "elements", "choices") if key in option}


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else str(name)


def _of(values: dict[str, Any]) -> str:
    """Which item it is, for a person who does not count list entries."""
    label = next((values[key] for key in ("name", "path", "host", "src") if isinstance(values.get(key), str)), None)
    return f' in "{label}"' if label else ""


def _known(options: Mapping[str, Any]) -> str:
    return f"; known are {', '.join(sorted(options))}"


def _plain(message: str, name: str) -> str:
    return message.replace(f"argument '{name}' is", "is").replace(f"value of {name} must", "must")
