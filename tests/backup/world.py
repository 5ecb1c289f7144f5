# SPDX-License-Identifier: GPL-3.0-or-later
"""A file server with a share, a backup disk, and volumes that hold everything that a file system can."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_run, _restore_run
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_run import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a repository that lives for seconds
UID = "3f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"
OBJECTS = {
    "claim": {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "web", "uid": "u-1", "resourceVersion": "7"},
        "spec": {"volumeName": "pv-1"},
        "status": {"phase": "Bound"},
    },
    "volume": {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pv-1", "uid": UID},
        "spec": {"claimRef": {"namespace": "web", "name": "data", "uid": "u-1", "resourceVersion": "7"}},
    },
}


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


class World:
    """`share` is exported; `volume` is a directory in it, `backup` a disk of its own."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.engine = engine
        self.share = folder / "share"
        self.volume = self.share / "web-data-pv-1"
        self.backup = folder / "backup"
        self.volume.mkdir(parents=True)
        self.backup.mkdir()
        self.table = folder / "etab"
        self.exports(self.share)
        password = PASSWORD if engine == "restic" else None
        self.settings = Settings(
            str(self.backup / "repository"), engine, password=password, progress_file=str(folder / "progress.log")
        )

    def exports(self, *paths: Path) -> None:
        self.table.write_text("".join(f"{path} *(rw,no_root_squash)\n" for path in paths))

    @property
    def places(self) -> Places:
        return Places(nfsd=str(self.folder / "nfsd"), table=str(self.table))

    def item(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "pv-1", "namespace": "web", "claim": "data", "server_dir": str(self.volume), "objects": OBJECTS,
            **more,
        }  # fmt: skip

    def back_up(
        self,
        *items: Mapping[str, Any],
        create: bool | None = None,
        retention: Mapping[str, Any] | None = None,
        check_mode: bool = False,
        **settings: Any,
    ) -> Outcome:
        volumes, problems = _backup.read_volumes(items or [self.item()])
        assert not problems
        return _backup_run.back_up(
            volumes,
            replace(self.settings, **settings),
            create=not (self.backup / "repository").exists() if create is None else create,
            retention=retention,
            check_mode=check_mode,
        )

    def good(self, *items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Back up, and return the one result; everything must be right."""
        outcome = self.back_up(*items, **more)
        if outcome.problems:
            raise AssertionError(outcome.problems)
        return outcome.items[0]

    def restore(self, *items: Mapping[str, Any], check_mode: bool = False, **settings: Any) -> Outcome:
        wanted = [{"name": "pv-1", "namespace": "web", "server_dir": str(self.volume), "share": str(self.share), **item}
                  for item in items or [{}]]  # fmt: skip
        assert _restore_run.read_items(wanted) == []
        return _restore_run.restore(
            wanted, replace(self.settings, **settings), self.places, allow_open=False, check_mode=check_mode
        )

    def back(self, *items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        outcome = self.restore(*items, **more)
        if outcome.problems:
            raise AssertionError(outcome.problems)
        return outcome.items[0]

    def generations(self) -> list[dict[str, Any]]:
        return _backup_run.listing(self.settings, [], [], objects="none")

    def verify(self, sample: float = 100, data: float = 0, generation: str = "latest") -> Outcome:
        return _backup_run.verify(
            [{"namespace": "web", "name": "pv-1", "generation": generation}],
            self.settings,
            sample=sample,
            data=data,
            scratch=str(self.folder / "scratch"),
            seed=1,
            check_mode=False,
        )


def disk(world: World, *make: str) -> Path:
    """A share on a file system of its own."""
    image = world.folder / "image"
    with image.open("wb") as stream:
        stream.truncate(320 << 20)
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)
    mount("-o", "loop", image, world.share)
    return image


# --- processes that end early ------------------------------------------------------------------------------


def forked(work: Callable[[], Any]) -> int:
    """Start a process that does some work and nothing else; its status is 0 if that raised nothing."""
    child = os.fork()
    if not child:
        try:
            outcome = work()
            os._exit(1 if getattr(outcome, "problems", None) else 0)
        except BaseException:
            os._exit(2)
    return child


def killed(work: Callable[[], Any], after: float) -> bool:
    """Kill a process that does some work, alone and not what it has started; tell whether that was in time."""
    child = forked(work)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    child = forked(work)
    _, status = os.waitpid(child, 0)
    assert status == 0
    return time.monotonic() - began


def names(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())
