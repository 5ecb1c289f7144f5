# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up many volumes, list what there is, and prove that it can be restored."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import (
    BackupError,
    Generation,
    Progress,
    Volume,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_restic import Restic
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_rsync import Rsync
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result, Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshots import NONE, Snapshots, opened

Engine = Union[Restic, Rsync]
Item = dict[str, Any]
_LOG_SIZE = 1 << 20


def engine_of(settings: Settings) -> Engine:
    return Rsync(settings) if settings.engine == "rsync" else Restic(settings)


class ProgressLog:
    """Lines about long copies, in a file that can be watched while the task runs."""

    def __init__(self, path: str, interval: float) -> None:
        self.path = path
        self._interval = interval
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def of(self, key: str) -> Callable[[Progress], None]:
        # A copy that is over before the first line is due needs none.
        self._last[key] = time.monotonic()
        return lambda progress: self._maybe(key, progress)

    def _maybe(self, key: str, progress: Progress) -> None:
        now = time.monotonic()
        if self.path and now - self._last[key] >= self._interval:
            self._last[key] = now
            self.write(progress.line(key, now))

    def write(self, line: str) -> None:
        """Append a line; what cannot be written must not stop a backup."""
        if not self.path:
            return
        with self._lock, contextlib.suppress(OSError):
            place = Path(self.path)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(place, flags, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
                if os.fstat(descriptor).st_size > _LOG_SIZE:
                    os.ftruncate(descriptor, 0)
                stream.write(f"{line}\n")


@dataclass
class Outcome:
    """What a run did. `problems` say why it counts as failed."""

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: dict[str, str] = field(default_factory=lambda: {"before": "", "after": ""})
    more: dict[str, Any] = field(default_factory=dict)  # what else the module returns

    @property
    def changed(self) -> bool:
        return bool(self.more.get("created")) or any(item.get("changed") for item in self.items)

    @property
    def message(self) -> str:
        count = f"{len(self.problems)} problems" if len(self.problems) > 1 else "a problem"
        return f"{count}: " + "; ".join(self.problems[:5]) + ("; ..." if len(self.problems) > 5 else "")


# --- modules -----------------------------------------------------------------------------------------------


def refuse(module: Any, problems: Sequence[str]) -> None:
    """End a module when its arguments are wrong, before anything is looked at."""
    if problems:
        module.fail_json(msg="nothing was done: " + "; ".join(problems), problems=list(problems))


@contextlib.contextmanager
def told(module: Any) -> Iterator[None]:
    """End a module with what concerns the whole of it."""
    try:
        yield
    except BackupError as error:
        module.fail_json(msg=f"nothing was done: {error}", problems=[str(error)])


def carry_out(module: Any, problems: Sequence[str], work: Callable[[], Outcome]) -> None:
    """Do the work of a module, and end it with all results, also when some are bad."""
    refuse(module, problems)
    with told(module):
        outcome = work()
        for warning in outcome.warnings:
            module.warn(warning)
        result = {"changed": outcome.changed, "volumes": outcome.items, "diff": outcome.diff, **outcome.more}
        if outcome.problems:
            module.fail_json(msg=outcome.message, problems=outcome.problems, **result)
        module.exit_json(**result)


# --- backup ------------------------------------------------------------------------------------------------


def back_up(
    volumes: Sequence[Volume],
    settings: Settings,
    *,
    create: bool,
    retention: Mapping[str, Any] | None,
    check_mode: bool,
) -> Outcome:
    """Make a generation of each volume; one that fails does not stop the others. Raises BackupError."""
    engine = engine_of(settings)
    outcome = Outcome()
    log = ProgressLog(settings.progress_file, settings.progress_interval)
    created = False
    # Without create, restic itself says what there is to say: asking first takes it a second, to derive the key.
    if create or isinstance(engine, Rsync):
        created = engine.prepare(create=create, check_mode=check_mode)
        if created:
            where = _backup.without_credentials(settings.repository)
            outcome.diff["before"] += f"{where}: no repository\n"
            outcome.diff["after"] += f"{where}: repository of {settings.engine}\n"
    outcome.more = {"created": created}
    missing = created and check_mode
    snapshots = Snapshots(settings.snapshot, settings.snapshot_size)
    with snapshots.of(volumes, dry=check_mode), ThreadPoolExecutor(max_workers=settings.parallel) as pool:
        outcome.items = list(
            pool.map(
                lambda volume: _back_up_one(volume, engine, log, snapshots, missing=missing, dry=check_mode), volumes
            )
        )
    outcome.problems += snapshots.problems
    if retention is not None and not missing:
        _apply_retention(engine, outcome, retention, check_mode=check_mode)
    for item in outcome.items:
        if item["failed"]:
            outcome.problems.append(f"{item['namespace'] or _backup.UNCLAIMED}/{item['name']}: {item['msg']}")
        if item["changed"]:
            new = item["generation"] or "a new generation"
            outcome.diff["after"] += f"{item['namespace'] or _backup.UNCLAIMED}/{item['name']} {new}\n"
        for removed in item["removed"]:
            outcome.diff["before"] += f"{item['namespace'] or _backup.UNCLAIMED}/{item['name']} {removed}\n"
    return outcome


def _back_up_one(
    volume: Volume, engine: Engine, log: ProgressLog, snapshots: Snapshots, *, missing: bool, dry: bool
) -> Item:
    began = time.monotonic()
    result, problem, snapshot, reason = Result(), "", NONE, ""
    try:
        with snapshots.source(volume) as source:
            snapshot, reason = source.snapshot, source.reason
            if not missing:
                result = engine.back_up(volume, source.descriptor, log.of(volume.key), dry=dry)
        problem = "; ".join(result.problems)
    except BackupError as error:
        problem = str(error)
    seconds = time.monotonic() - began
    made = dry or bool(result.generation)
    item = {
        "name": volume.name,
        "namespace": volume.namespace,
        "claim": volume.claim,
        "server_dir": volume.server_dir,
        "snapshot": snapshot,
        "snapshot_reason": reason,
        "changed": made and (dry is False or not problem),
        "failed": bool(problem),
        "generation": "" if dry else result.generation,
        "path": result.path,
        "complete": made and result.complete and not problem,
        "files": result.counts["files"],
        "directories": result.counts["directories"],
        "bytes": result.bytes,
        "changed_files": result.changed,
        "copied_bytes": result.copied_bytes,
        "vanished": result.vanished,
        "seconds": round(seconds, 3),
        "removed": [],
        "msg": problem,
    }
    if not dry:
        words = f"failed: {problem}" if problem else f"generation {result.generation}"
        log.write(
            f"{_backup.rfc3339(time.time())} {volume.key}: {words}, {result.counts['files']} files, "
            f"{_backup.size(result.bytes)}, {result.changed} changed, {_backup.duration(seconds)}"
        )
    return item


def _apply_retention(engine: Engine, outcome: Outcome, retention: Mapping[str, Any], *, check_mode: bool) -> None:
    """Remove what has had its time, of the volumes that have just got a good generation and of no other."""
    done = [item for item in outcome.items if item["complete"]]
    if not done:
        return
    try:
        there = engine.generations()
    except BackupError as error:
        outcome.problems.append(f"retention: {error}")
        return
    removed: list[Generation] = []
    for item in done:
        key = _backup.key_of(item["namespace"], item["name"])
        mine = [one for one in there if one.key == key]
        if check_mode:
            mine.append(Generation(engine.name, "", item["namespace"], item["name"], "", time.time(), True))
        gone = _backup.expired(mine, retention)
        item["removed"] = [one.generation for one in gone]
        removed += gone
    if not removed or check_mode:
        return
    try:
        engine.remove(removed)
        if isinstance(engine, Restic):
            engine.prune()
    except BackupError as error:
        outcome.problems.append(f"retention: {error}")


# --- listing -----------------------------------------------------------------------------------------------


def listing(
    settings: Settings, wanted: Sequence[Mapping[str, Any]], namespaces: Sequence[str], *, objects: str
) -> list[Item]:
    """Generations as data, oldest first; with the objects of all, of the latest good ones, or of none.

    Raises BackupError.
    """
    engine = engine_of(settings)
    engine.prepare(create=False, check_mode=True)
    keys = {_backup.key_of(item.get("namespace") or "", item["name"]) for item in wanted}
    found = [
        one
        for one in engine.generations()
        if (not keys or one.key in keys) and (not namespaces or one.namespace in namespaces)
    ]
    latest = {one.key: one for one in sorted(found, key=lambda one: one.time) if one.good}
    result = []
    for one in found:
        item = {**one.data(), "latest": latest.get(one.key) == one, "objects": None, "objects_original": None}
        if objects == "all" or (objects == "latest" and item["latest"]):
            with contextlib.suppress(BackupError):
                kept = engine.objects(one)
                item.update(objects=kept["objects"], objects_original=kept["objects-original"])
        result.append(item)
    return result


# --- verification ------------------------------------------------------------------------------------------


def verify(
    wanted: Sequence[Mapping[str, Any]],
    settings: Settings,
    *,
    sample: float,
    data: float,
    scratch: str,
    seed: int | None,
    check_mode: bool,
) -> Outcome:
    """Restore a sample of each generation into scratch space and compare it with what was recorded.

    Without a list the latest generation of every volume is taken. Raises BackupError.
    """
    engine = engine_of(settings)
    engine.prepare(create=False, check_mode=True)
    outcome = Outcome()
    there = engine.generations()
    items = list(wanted) or [
        {"namespace": namespace, "name": name, "generation": _backup.LATEST}
        for namespace, name in sorted({(one.namespace, one.name) for one in there})
    ]
    log = ProgressLog(settings.progress_file, settings.progress_interval)
    number = seed if seed is not None else int(time.time())
    with ThreadPoolExecutor(max_workers=settings.parallel) as pool:
        outcome.items = list(
            pool.map(
                lambda item: _verify_one(item, engine, there, log, sample, scratch, number, check_mode=check_mode),
                items,
            )
        )
    for item in outcome.items:
        if item["failed"]:
            outcome.problems.append(f"{item['namespace'] or _backup.UNCLAIMED}/{item['name']}: {item['msg']}")
    if data > 0 and not check_mode:
        outcome.problems += engine.check_repository(data)
    return outcome


def _verify_one(
    wanted: Mapping[str, Any],
    engine: Engine,
    there: Sequence[Generation],
    log: ProgressLog,
    sample: float,
    scratch: str,
    seed: int,
    *,
    check_mode: bool,
) -> Item:
    began = time.monotonic()
    namespace, name = wanted.get("namespace") or "", wanted["name"]
    item: Item = {"name": name, "namespace": namespace, "generation": "", "files": 0, "damaged": [], "msg": ""}
    try:
        generation = _backup.select(there, _backup.key_of(namespace, name), wanted.get("generation") or _backup.LATEST)
        item["generation"] = generation.generation
        if not check_mode:
            _try_restore(generation, engine, log, sample, scratch, seed, item)
    except BackupError as error:
        item["msg"] = str(error)
    item["failed"] = bool(item["msg"])
    item["seconds"] = round(time.monotonic() - began, 3)
    if not check_mode:
        words = item["msg"] or f"{item['files']} files of generation {item['generation']} restored and compared"
        log.write(f"{_backup.rfc3339(time.time())} {_backup.key_of(namespace, name)}: verification: {words}")
    return item


def _try_restore(
    generation: Generation, engine: Engine, log: ProgressLog, sample: float, scratch: str, seed: int, item: Item
) -> None:
    paths = engine.sample(generation, sample, seed)
    if sample < 100 and not paths:
        paths = []  # nothing but directories: all of it
    total, files = engine.needed(generation, paths)
    try:
        Path(scratch).mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as folder:
            check_space(folder, total, files)
            with opened(folder) as target:
                os.mkdir("data", 0o700, dir_fd=target)
                engine.restore(generation, paths, target, log.of(generation.key))
            found = engine.compare(generation, paths, folder)
    except OSError as error:
        raise BackupError(f"{error.filename or scratch}: {error.strerror}") from error
    item["files"] = found.compared
    item["damaged"] = [os.fsdecode(path) for path in found.damaged]
    if found.damaged:
        engine.mark_damaged(generation, found.damaged)
    if found.count:
        raise BackupError(f"generation {generation.generation} is not what was recorded: {found.words()}")
    engine.objects(generation)


def check_space(folder: str, needed: int, files: int) -> None:
    """Raises BackupError when a restore would fill the disk."""
    found = os.statvfs(folder)
    available = found.f_bavail * found.f_frsize
    # Each file takes a block more than its bytes, at most.
    wanted = needed + files * found.f_bsize
    if wanted > available:
        raise BackupError(
            f"{folder}: {_backup.size(wanted)} are needed beside what is there, {_backup.size(available)} are free"
        )
    if found.f_files and files > found.f_favail:
        raise BackupError(f"{folder}: {files} inodes are needed, {found.f_favail} are free")
