# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any step of writing fstab leaves the old or the new one, complete, with its mode."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab
from ansible_collections.clusterkit.storage.plugins.module_utils._fstab import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine

from tests.tracing import kill_at, run_traced, steps, was_killed

OLD = "UUID=1 / ext4 defaults 0 1\n# mine\n" + "".join(f"nfs1:/{n} /m/{n} nfs hard 0 0\n" for n in range(2000))


def test_killed_at_every_step_of_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fstab = tmp_path / "fstab"
    monkeypatch.setattr(_fstab, "FSTAB", str(fstab))
    lines = _fstab.with_entry(_fstab.parse(OLD), Entry("nfs1:/new", "/m/new", "nfs", ("soft",)))
    new = _fstab.render(_fstab.without_entry(lines, "/m/7"))

    def start() -> None:
        fstab.write_text(OLD)
        fstab.chmod(0o640)

    def write() -> None:
        Machine().write_fstab(new)

    log = tmp_path / "trace"
    start()
    assert run_traced(write, log) == 0
    assert fstab.read_text() == new
    calls = steps(log)
    names = [name for name, _ in calls]
    assert {"write", "fsync", "rename", "fchmod"} <= set(names), names
    assert names.count("fsync") == 2, "the file, and its folder"

    seen = set()
    for name, number in calls:
        where = f"killed at {name} number {number}"
        start()
        assert was_killed(run_traced(write, log, *kill_at(name, number))), where
        assert fstab.read_text() in (OLD, new), where
        assert fstab.stat().st_mode & 0o777 == 0o640, where
        seen.add(fstab.read_text() == new)
        write()  # the next run
        assert fstab.read_text() == new, where
        assert {path.name for path in tmp_path.iterdir()} == {"fstab", "trace"}, where
    assert seen == {False, True}
