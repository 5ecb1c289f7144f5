# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile case is, and the list of all: the modules hostile_* add theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.tests.server_disk import World

Step = dict[str, Any]
ANYWHERE = {"device": 1, "inode": 4711}


@dataclass
class Case:
    name: str
    arrange: Callable[[World], Any]  # returns steps, or steps and more arguments
    expected: str  # the state of the first step; "arguments" when the arguments are refused
    words: str = ""
    state: str = "quarantined"


CASES: list[Case] = []


def case(name: str, expected: str, words: str = "", state: str = "quarantined") -> Callable[..., Any]:
    def add(arrange: Callable[[World], Any]) -> Callable[[World], Any]:
        CASES.append(Case(name, arrange, expected, words, state))
        return arrange

    return add


def literal(world: World, path: str) -> list[Step]:
    return [{"id": "1", "share": str(world.share), "directory": path, "precondition": ANYWHERE}]
