# SPDX-License-Identifier: GPL-3.0-or-later
"""When snapshots are made and removed, and what is said of them.

What they are made of is simulated: a snapshot is a name in a list, and shows the live directory. Real file systems are
tried in tests/backup.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _snapshots
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Volume
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import NotBeneath
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import parse
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshots import Snapshots


class Simulated:
    """A file system that can make snapshots. C(fails): by method, what it raises."""

    kind = "btrfs"
    what = "subvolume /srv"

    def __init__(self, shown: Path) -> None:
        self.shown = shown
        self.names: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.closed = 0

    def _try(self, method: str) -> None:
        if method in self.fails:
            raise self.fails[method]

    def left(self) -> list[str]:
        self._try("left")
        return list(self.names)

    def make(self, name: str) -> None:
        self._try("make")
        self.names.append(name)

    def open(self, name: str, _inside: str) -> int:
        self._try("open")
        assert name in self.names
        return os.open(self.shown, os.O_RDONLY | os.O_DIRECTORY)

    def remove(self, name: str) -> None:
        self._try("remove")
        self.names.remove(name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "v").mkdir()
    return Volume("v", "shop", "c", str(tmp_path / "v"))


@pytest.fixture
def system(volume: Volume) -> Simulated:
    return Simulated(Path(volume.server_dir))


Maker = Callable[..., Snapshots]


@pytest.fixture
def of_kind(tmp_path: Path, system: Simulated, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Make the snapshots of a run; with a problem there is nothing that they can be made of."""

    def make(kind: str, problem: str = "") -> Snapshots:
        def origin(*_given: Any) -> Simulated:
            if problem:
                raise BackupError(problem)
            return system

        monkeypatch.setattr(Snapshots, "_origin", origin)
        return Snapshots(kind, places=tmp_path / "places")

    return make


def locks(snapshots: Snapshots) -> list[str]:
    return [one.name for one in snapshots.places.iterdir()]


@pytest.mark.parametrize("kind", ["auto", "btrfs"])
def test_one_is_made_for_a_file_system_and_removed_afterwards(
    kind: str, of_kind: Maker, system: Simulated, volume: Volume
) -> None:
    snapshots = of_kind(kind)
    with snapshots.of([volume, volume], dry=False):
        (name,) = system.names
        assert name.startswith("clusterkit-backup-") and locks(snapshots) == [f"{name}.lock"]
        with snapshots.source(volume) as source:
            assert (source.snapshot, source.reason) == ("btrfs", "")
            assert os.fstat(source.descriptor).st_ino == Path(volume.server_dir).stat().st_ino
    assert (system.names, locks(snapshots), system.closed, snapshots.problems) == ([], [], 1, [])


def test_none_is_made_unless_wanted(of_kind: Maker, system: Simulated, volume: Volume) -> None:
    snapshots = of_kind("none")
    with snapshots.of([volume], dry=False), snapshots.source(volume) as source:
        assert (source.snapshot, source.reason, system.names) == ("none", "", [])


def test_a_trial_makes_none(of_kind: Maker, system: Simulated, volume: Volume) -> None:
    snapshots = of_kind("btrfs")
    with snapshots.of([volume], dry=True), snapshots.source(volume) as source:
        assert (source.snapshot, system.names, system.closed) == ("none", [], 1)


def test_where_there_can_be_none_auto_copies_as_it_is_and_all_else_fails(of_kind: Maker, volume: Volume) -> None:
    snapshots = of_kind("auto", "it lies on tmpfs")
    with snapshots.of([volume], dry=False), snapshots.source(volume) as source:
        assert (source.snapshot, source.reason) == ("none", "it lies on tmpfs")
    snapshots = of_kind("lvm", "it lies on tmpfs")
    with (
        snapshots.of([volume], dry=False),
        pytest.raises(BackupError, match=r"no snapshot \(lvm\) can be made: it lies on tmpfs"),
        snapshots.source(volume),
    ):
        pass
    snapshots = of_kind("lvm")
    with (
        snapshots.of([volume], dry=False),
        pytest.raises(BackupError, match="it lies on btrfs"),
        snapshots.source(volume),
    ):
        pass


def test_a_directory_that_comes_later_is_no_part_of_it(of_kind: Maker, tmp_path: Path) -> None:
    late = Volume("late", "shop", "c", str(tmp_path / "late"))
    snapshots = of_kind("btrfs")
    with snapshots.of([late], dry=False):
        (tmp_path / "late").mkdir()
        with (
            pytest.raises(BackupError, match="it was not there when the snapshots were made"),
            snapshots.source(late),
        ):
            pass


def test_what_a_killed_run_has_left_is_removed_and_what_others_made_or_use_is_not(
    of_kind: Maker, system: Simulated, volume: Volume
) -> None:
    snapshots = of_kind("btrfs")
    system.names = ["clusterkit-backup-dead", "clusterkit-backup-alive", "of-a-person"]
    alive = snapshots._lock("clusterkit-backup-alive")
    with snapshots.of([volume], dry=False):
        assert system.names[:2] == ["clusterkit-backup-alive", "of-a-person"] and len(system.names) == 3
    assert system.names == ["clusterkit-backup-alive", "of-a-person"]
    os.close(cast("int", alive))


def test_one_that_cannot_be_made_fails_its_volumes_only(of_kind: Maker, system: Simulated, volume: Volume) -> None:
    snapshots = of_kind("auto")
    system.fails = {"make": OSError(28, "No space left on device")}
    with (
        snapshots.of([volume], dry=False),
        pytest.raises(BackupError, match="subvolume /srv: No space left on device"),
        snapshots.source(volume),
    ):
        pass
    assert (locks(snapshots), system.closed) == ([], 1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(16, "Device or resource busy", "/srv"), "/srv: Device or resource busy"),
        (BackupError("it had become full"), "it had become full"),
        (NotBeneath("snapshots is a link"), "snapshots is a link"),
    ],
)
def test_one_that_cannot_be_removed_is_named(
    error: Exception, words: str, of_kind: Maker, system: Simulated, volume: Volume
) -> None:
    snapshots = of_kind("btrfs")
    with snapshots.of([volume], dry=False):
        (name,) = system.names
        system.fails = {"remove": error}
    assert snapshots.problems == [f"removal of snapshot {name} of subvolume /srv: {words}"]
    assert system.closed == 1


def test_a_snapshot_that_shows_another_directory_is_not_copied(
    of_kind: Maker, system: Simulated, volume: Volume, tmp_path: Path
) -> None:
    snapshots = of_kind("btrfs")
    with snapshots.of([volume], dry=False):
        system.shown = tmp_path
        with pytest.raises(BackupError, match="has another directory in place of"), snapshots.source(volume):
            pass
        system.fails = {"open": NotBeneath("v is a link")}
        with pytest.raises(BackupError, match=r"snapshot clusterkit-backup-.*: v is a link"), snapshots.source(volume):
            pass


def test_a_directory_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="No such file or directory"), _snapshots.opened(str(tmp_path / "gone")):
        pass
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(BackupError, match="link"), _snapshots.opened(str(tmp_path / "link")):
        pass


@pytest.mark.parametrize(
    ("root", "at", "path", "inside"),
    [
        ("/", "/srv", "/srv/k8s/v", "/k8s/v"),
        ("/", "/", "/srv/v", "/srv/v"),
        ("/part", "/srv", "/srv/v", "/part/v"),
        ("/part", "/srv", "/srv", "/part"),
    ],
)
def test_a_mount_may_show_a_part_of_its_file_system(root: str, at: str, path: str, inside: str) -> None:
    (mount,) = parse(f"40 1 8:1 {root} {at} rw - xfs /dev/sda1 rw")
    assert _snapshots._inside(mount, path) == inside
