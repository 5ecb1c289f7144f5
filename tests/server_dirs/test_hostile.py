# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths made to lead a remover astray: whatever they are, nothing outside the volume's own directory changes.

Each case is run with the kernel's own rules (openat2) and without. The whole tree around the volume is hashed before
and after; where the step is refused, the volume too.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, tree

from . import hostile_paths, hostile_surroundings, hostile_trash
from .hostile import CASES, Case


def test_there_are_enough_cases() -> None:
    names = [one.name for one in CASES]
    assert len(set(names)) == len(names)
    assert len(names) >= 80
    where = {one.arrange.__module__ for one in CASES}
    assert where == {module.__name__ for module in (hostile_paths, hostile_surroundings, hostile_trash)}


def own_files(world: World) -> list[Path]:
    """What a refused run writes, too."""
    return [world.disk / OWN / name for name in ("lease.json", "lock", "journal.jsonl")]


@pytest.mark.parametrize("one", CASES, ids=lambda one: ascii(one.name))
def test_nothing_outside_changes(world: World, way: str, one: Case) -> None:
    volume = world.volume()
    world.present()
    arranged = one.arrange(world)
    steps, more = arranged if isinstance(arranged, tuple) else (arranged, {})
    changes = one.expected == "changed"
    left_out = own_files(world)
    if changes:
        # The way to a directory that is deeper than a path may be long: the first part stands for it.
        directory = Path(steps[0].get("directory") or volume)
        top = world.share / directory.relative_to(world.share).parts[0]
        left_out += [top if len(str(directory)) > 4000 else directory, world.trash, world.own / "intents"]
    elif one.expected == "failed" and not any(world.trash.iterdir()):
        left_out.append(world.trash)  # an entry is made there, and removed again
    before = tree(world.folder, *left_out)
    if one.expected == "arguments":
        with pytest.raises(ValueError) as caught:
            world.run(one.state, *steps, **more)
        told = str(caught.value)
    else:
        predicted = world.run(one.state, *steps, check_mode=True, **more)
        assert tree(world.folder, *left_out) == before
        if one.expected != "failed":  # what only the attempt can show
            assert predicted.items[0]["state"] == one.expected
        outcome = world.run(one.state, *steps, **more)
        assert outcome.items[0]["state"] == one.expected, outcome.items
        assert outcome.changed == changes
        told = outcome.problem
    assert one.words in told, told
    assert tree(world.folder, *left_out) == before
    if changes:
        assert len(list(world.trash.glob("*/data"))) == (one.state == "quarantined")
