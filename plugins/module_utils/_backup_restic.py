# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations as snapshots of a restic repository: encrypted, deduplicated, on a disk, SFTP, S3 or rest-server.

A snapshot holds `/data`, `/manifest.json`, `/objects.json` and `/objects-original.json`, whatever the directory of
the volume was called: restic runs in a mount namespace of its own, in which the open directory is mounted read-only.
It carries the tags `clusterkit`, `namespace=...`, `volume=...` and `claim=...`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_files, _files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import (
    BackupError,
    Generation,
    Progress,
    Volume,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import Ended, wait_for_lock
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_restic_call import MINIMUM, Caller
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result, Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN

TAG, INCOMPLETE = "clusterkit", "incomplete"
STAGES = "/run/clusterkit.storage/backup"

# The directory of the volume is the working directory; a bind mount of it has nothing of what is mounted below it.
_IN_NAMESPACE = 'mount -c --bind . "$1/data" && mount -o remount,bind,ro "$1/data" && cd "$1" && shift && exec "$@"'
_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _IN_NAMESPACE, "sh"]

_GLOB = re.compile(r"([\\*?\[\]])")


class Restic(Caller):
    """A repository."""

    name = "restic"
    resumes = False  # it writes into files that are there

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.stages = Path(STAGES)
        self._listed: dict[str, list[Entry]] = {}

    # --- before anything is done -----------------------------------------------------------------------

    def prepare(self, *, create: bool, check_mode: bool) -> bool:
        """Look whether the repository is there; tell whether it was, or would be, made. Raises BackupError."""
        self.check_version()
        if not create:
            return False  # whatever is called next says what is wrong
        config: list[bytes] = []
        ended = self.run(["cat", "config", "--no-lock"], config.append)
        if not ended.status:
            return False
        if not self.is_missing(ended):
            raise self.failure(ended)
        if not check_mode:
            self.ask("init", "--quiet")
        return True

    # --- what there is ---------------------------------------------------------------------------------

    def generations(self) -> list[Generation]:
        """All snapshots that this made. Raises BackupError."""
        found = []
        for snapshot in json.loads(self.ask("snapshots", "--json", "--no-lock", "--tag", TAG) or b"[]") or []:
            tags = dict(tag.split("=", 1) for tag in snapshot.get("tags") or [] if "=" in tag)
            if "volume" not in tags:
                continue
            found.append(
                Generation(
                    self.name,
                    snapshot["id"],
                    tags.get("namespace", ""),
                    tags["volume"],
                    tags.get("claim", ""),
                    _seconds(snapshot["time"]),
                    INCOMPLETE not in snapshot["tags"],
                    counts={},
                )
            )
        return sorted(found, key=lambda one: one.time)

    def objects(self, generation: Generation) -> dict[str, Any]:
        """Return the objects that can be created again, and the originals. Raises BackupError."""
        return {
            name: json.loads(self.ask("dump", "--no-lock", generation.generation, f"/{name}.json"))
            for name in ("objects", "objects-original")
        }

    def entries(self, generation: Generation) -> Iterator[Entry]:
        """The recorded files. Raises BackupError."""
        return iter(self._entries(generation))

    def _entries(self, generation: Generation) -> list[Entry]:
        """Each call takes about a second: what one restore needs twice is kept until then."""
        if generation.generation in self._listed:
            return self._listed[generation.generation]
        found: list[Entry] = []

        def line(text: bytes) -> None:
            with contextlib.suppress(ValueError):
                entry = _backup_files.of_node(json.loads(text))
                if entry is not None:
                    found.append(entry)

        ended = self.run(["ls", "--json", "--no-lock", generation.generation], line)
        if ended.status:
            raise self.failure(ended)
        self._listed[generation.generation] = found
        return found

    # --- backing up ------------------------------------------------------------------------------------

    def back_up(self, volume: Volume, source: int, progress: Callable[[Progress], None], *, dry: bool) -> Result:
        """Make a snapshot of an open directory. Raises BackupError."""
        if not self.version:
            self.check_version()
        stage = self.stages / volume.key
        try:
            stage.mkdir(mode=0o700, parents=True, exist_ok=True)
            (stage / "data").mkdir(mode=0o700, exist_ok=True)
            lock = os.open(stage / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise BackupError(f"{error.filename}: {error.strerror}") from error
        try:
            wait_for_lock(lock, f"another run backs up {volume.key}")
            return self._make(volume, source, progress, stage, lock, dry=dry)
        finally:
            os.close(lock)

    def _make(
        self,
        volume: Volume,
        source: int,
        progress: Callable[[Progress], None],
        stage: Path,
        lock: int,
        *,
        dry: bool,
    ) -> Result:
        files = _backup.object_files(volume.objects)
        files["manifest.json"] = {
            "schema": _backup.SCHEMA,
            "kind": "Generation",
            "engine": self.name,
            "name": volume.name,
            "namespace": volume.namespace,
            "claim": volume.claim,
            "server_dir": volume.server_dir,
            "started_at": _backup.rfc3339(time.time()),
        }
        for name, content in files.items():
            _files.replace_file(str(stage / name), json.dumps(content, sort_keys=True, indent=1) + "\n", mode=0o600)
        tags = [TAG, f"volume={volume.name}"]
        tags += [f"namespace={volume.namespace}"] if volume.namespace else []
        tags += [f"claim={volume.claim}"] if volume.claim else []
        arguments = ["backup", "--json", "--host", TAG, *(word for tag in tags for word in ("--tag", tag))]
        arguments += ["--exclude", str(stage / "data" / OWN)]
        arguments += ["--dry-run"] if dry else []
        arguments += self.limits()
        state, started = Progress(time.monotonic()), time.time()
        summary: dict[str, Any] = {}

        def line(text: bytes) -> None:
            with contextlib.suppress(ValueError):
                said = json.loads(text)
                if said.get("message_type") == "summary":
                    summary.update(said)
                elif said.get("message_type") == "status":
                    state.files, state.total_files = said.get("files_done", 0), said.get("total_files", 0)
                    state.bytes, state.total_bytes = said.get("bytes_done", 0), said.get("total_bytes", 0)
                    progress(state)

        ended = self.run(
            [*arguments, "data", *files],
            line,
            before=[*_NAMESPACE, str(stage)],
            cwd=source,
            descriptors=[lock],
        )
        # 3: there is a snapshot, but something could not be read.
        if ended.status not in (0, 3) or not summary:
            raise self.failure(ended)
        result = self._result(summary, len(files))
        if ended.status == 3:
            self._judge(ended, result, source, started)
        if not result.complete and not dry:
            self._mark_incomplete(result)
        return result

    @staticmethod
    def _result(summary: dict[str, Any], own: int) -> Result:
        result = Result(generation=str(summary.get("snapshot_id") or ""))
        # The objects and the manifest are files of the snapshot, too.
        result.counts["files"] = max(int(summary["total_files_processed"]) - own, 0)
        result.counts["directories"] = sum(summary[f"dirs_{kind}"] for kind in ("new", "changed", "unmodified"))
        result.bytes = int(summary["total_bytes_processed"])
        result.changed = max(int(summary["files_new"]) + int(summary["files_changed"]) - own, 0)
        result.copied_bytes = int(summary.get("data_added") or 0)
        return result

    @staticmethod
    def _judge(ended: Ended, result: Result, source: int, started: float) -> None:
        """Tell files that vanished while they were copied, as files of living volumes do, from those that are ill."""
        for text in ended.errors.splitlines():
            if not text.startswith("{"):
                continue
            if '"Err":2' in text or "no such file or directory" in text:
                result.vanished += 1
            else:
                with contextlib.suppress(ValueError):
                    said = json.loads(text)
                    error = said.get("error") or {}
                    if not error and _came_or_went(source, str(said.get("item")), started):
                        result.vanished += 1
                        continue
                    reason = error.get("message") or f"{error.get('Op')}: {os.strerror(error.get('Err') or 5)}"
                    result.problems.append(f"{said.get('item')}: {reason}")
        if not result.vanished and not result.problems:
            result.problems.append(ended.words())
        result.complete = not result.problems

    def _mark_incomplete(self, result: Result) -> None:
        self.ask("tag", "--quiet", "--add", INCOMPLETE, result.generation)
        for snapshot in json.loads(self.ask("snapshots", "--json", "--no-lock", "--tag", INCOMPLETE)) or []:
            if (snapshot.get("original") or "").startswith(result.generation):
                result.generation = snapshot["id"]

    # --- removing --------------------------------------------------------------------------------------

    def remove(self, generations: Sequence[Generation]) -> None:
        """Remove snapshots, and what only they need. Raises BackupError."""
        # What killed runs of this host left behind, and nothing else.
        self.ask("unlock", "--quiet")
        self.ask("forget", "--quiet", *(one.generation for one in generations))

    def prune(self) -> None:
        """Free the space of what was removed. Raises BackupError."""
        self.ask("prune", "--quiet")

    def mark_damaged(self, generation: Generation, paths: Sequence[bytes]) -> None:
        """Content is found by its digest: a new backup does not build on what cannot be read."""

    def check_repository(self, share: float) -> list[str]:
        """Check the structure of the repository, and read so many percent of its data; return what is wrong."""
        self.ask("unlock", "--quiet")
        lines: list[bytes] = []
        subset = "100%" if share >= 100 else f"{share:g}%"
        arguments = ["check", *(["--read-data-subset", subset] if share > 0 else [])]
        ended = self.run(arguments, lines.append)
        if not ended.status:
            return []
        failure = self.failure(ended)
        return [str(failure)]

    # --- restoring -------------------------------------------------------------------------------------

    def needed(self, generation: Generation, paths: Sequence[str]) -> tuple[int, int]:
        """Bytes and files that a restore takes. Raises BackupError, also for a path that is not in the generation."""
        return _backup_files.needed(self.entries(generation), paths, generation, lossy=True)

    def restore(
        self,
        generation: Generation,
        paths: Sequence[str],
        target: int,
        progress: Callable[[Progress], None],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Restore a snapshot, or some paths of it, into `data` in an open folder. Raises BackupError."""
        total, files = self.needed(generation, paths)
        state = Progress(time.monotonic(), total_bytes=total, total_files=files)
        before = _used(target)

        def tick(_pid: int) -> None:
            # It tells nothing itself before 0.16: what the file system has lost is a good guess.
            state.bytes = max(_used(target) - before, 0)
            progress(state)

        includes = [word for path in paths or [""] for word in ("--include", _pattern(f"/data/{path}".rstrip("/")))]
        arguments = ["restore", "--verify", "--target", ".", *self.limits(), *includes]
        # Since 0.15: holes of sparse files stay holes.
        arguments += ["--sparse"] if (self.version or MINIMUM) >= (0, 15, 0) else []
        ended = self.run(
            [*arguments, generation.generation], lambda _line: None, tick=tick, cwd=target, descriptors=descriptors
        )
        if ended.status:
            raise self.failure(ended)

    def compare(self, generation: Generation, paths: Sequence[str], target: str) -> _backup_files.Comparison:
        """Compare what was restored with the snapshot; restic itself has compared the content (--verify)."""
        expected = _backup_files.chosen(self.entries(generation), paths, lossy=True)
        if not paths:
            # Sockets are kept as names that cannot be restored.
            expected = (
                entry
                for entry in self.entries(generation)
                if entry.type != _backup_files.SPECIAL or self._is_there(target, entry)
            )
        self._listed.pop(generation.generation, None)
        return _backup_files.compare(f"{target}/data", expected, whole=not paths, lossy=True)

    @staticmethod
    def _is_there(target: str, entry: Entry) -> bool:
        path = os.path.join(os.fsencode(f"{target}/data"), entry.path)  # noqa: PTH118 - names are bytes
        return os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode)

    def sample(self, generation: Generation, share: float, seed: int) -> list[str]:
        """Some files of a generation, others for another seed; [] for all of it."""
        if share >= 100:
            return []
        names = (
            os.fsdecode(entry.path)
            for entry in self.entries(generation)
            if entry.type == _backup_files.FILE and b"\xef\xbf\xbd" not in entry.path
        )
        return _backup.sampled(names, share, seed)


def _came_or_went(source: int, item: str, started: float) -> bool:
    """Tell whether a file was removed, or made, while it was to be copied: restic 0.14 gives no reason for that."""
    path = item.strip("/")
    path = path[len("data/") :] if path.startswith("data/") else path
    try:
        return os.stat(path, dir_fd=source, follow_symlinks=False).st_ctime >= started - 1
    except OSError:
        return True


def _pattern(path: str) -> str:
    """A path as a pattern of restic's, which are those of Go's filepath.Match."""
    return _GLOB.sub(r"\\\1", path)


def _used(folder: int) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _seconds(text: str) -> float:
    """A time as Go prints it: nanoseconds, which Python does not read."""
    found = re.fullmatch(r"(.{19})(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if found is None:
        raise BackupError(f"restic: {text!r} is no time")
    zone = "+00:00" if found[3] == "Z" else found[3]
    return datetime.datetime.fromisoformat(found[1] + zone).timestamp() + float(found[2] or 0)
