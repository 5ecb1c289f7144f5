# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations as plain trees, made by rsync(1): what did not change is a hard link to the generation before.

rsync runs in the directory of the volume and copies `./`: there is no source path that could lack its trailing slash,
or that somebody could turn into a symbolic link meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import (
    BackupError,
    Generation,
    Progress,
    Volume,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import KnownDigests
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import bytes_read, follow, gentle
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_rsync_record import (
    AttributesFoundError,
    Record,
    UnreadError,
    count,
    has_attributes,
    lines_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_rsync_store import (
    DATA,
    LIST,
    MANIFEST,
    PARTIAL,
    RESUME,
    Store,
    flush_file_system,
    remove,
    words,
    write_private,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN

_COUNT_AFTER = 10.0  # seconds after which a copy of unknown size is worth counting what is to be copied
_MOST_LINK_DESTS = 15  # rsync takes 20

# Everything that a file is; owners as numbers, since the names of clients are not those of this host. One file system.
# Times are compared to the nanosecond: a file that changes twice in a second changes twice. Not --inplace: with -S each
# file is truncated twice more, which takes longer on XFS and ext4 than a name of its own for the time of the copy.
_ARCHIVE = ["-aHS", "--numeric-ids", "--one-file-system", "--modify-window=-1"]
_ATTRIBUTES = ["-AX"]
_OUTPUT = ["--checksum-choice=md5", "-ii", f"--out-format={_backup_files.OUT_FORMAT}"]
_PARTLY = (23, 24)  # some files could not be read; some vanished
_VANISHED = re.compile(r"^file has vanished: ", re.MULTILINE)
_CHUNK = 1 << 20
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


class Rsync(Store):
    """Copies into a folder of generations, and back."""

    resumes = True  # a restore goes on with what an earlier one has left

    # --- backing up ------------------------------------------------------------------------------------

    def back_up(self, volume: Volume, source: int, progress: Callable[[Progress], None], *, dry: bool) -> Result:
        """Make a generation of an open directory. Raises BackupError; those that are there stay as they are."""
        if dry:
            return self._copy(source, progress, Path("/.clusterkit-backup-none"), self.newest(volume), dry=True)
        folder = self.root / volume.key
        try:
            # Volumes may be private; what they hold must not become readable by its copy.
            for each in (folder.parent, folder):
                each.mkdir(mode=0o700, exist_ok=True)
            with self.locked(folder) as lock:
                return self._make(volume, source, progress, folder, lock)
        except OSError as error:
            raise BackupError(words(error)) from error

    def _make(
        self,
        volume: Volume,
        source: int,
        progress: Callable[[Progress], None],
        folder: Path,
        lock: int,
        *,
        careful: bool = False,
    ) -> Result:
        partial = folder / PARTIAL
        resumed = sorted(folder.glob(f"{RESUME}*"), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
        if partial.exists():
            number = int(resumed[0].suffix[1:]) + 1 if resumed else 1
            # rsync changes owner, mode and times of files that it finds in place, and those it finds here may be links
            # to an older generation: so a partial copy is linked from like a generation, and never gone on with.
            partial = partial.rename(folder / f"{RESUME}{number}")
            resumed.insert(0, partial)
            partial = folder / PARTIAL
        for old in resumed[_MOST_LINK_DESTS - 1 :]:
            remove(old)
        bases = resumed[: _MOST_LINK_DESTS - 1] + self.newest(volume)
        (partial / DATA).mkdir(mode=0o700, parents=True)
        partial.chmod(0o700)
        started = time.time()
        # rsync asks for the ACLs and attributes of each file, here and in the generation before. Where nothing has any,
        # and nothing comes from the folder that the copy is made in, a copy is as good without, and quicker; each file
        # copied is looked at.
        plain = not resumed and not any(self.may_have_attributes(base) for base in bases)
        plain = plain and not has_attributes(os.fsencode(partial / DATA)) and not has_attributes(source)
        try:
            result = self._copy(
                source, progress, partial / DATA, bases, dry=False, lock=lock, careful=careful, plain=plain
            )
        except AttributesFoundError:
            return self._make(volume, source, progress, folder, lock)
        except UnreadError:
            return self._make(volume, source, progress, folder, lock, careful=True)
        except (BackupError, OSError) as error:  # of rsync, or of the list beside it
            if _FULL.search(str(error)):
                # What was copied does not help while there is no room for the rest, and others need the disk.
                for each in (partial, *resumed):
                    remove(each)
            raise
        self._finish(volume, partial, result, started, source, attributes=not plain)
        generation = self.publish(folder, partial, started, complete=result.complete)
        for old in resumed:
            remove(old)
        result.generation = generation
        result.path = str(folder / generation)
        return result

    def _copy(
        self,
        source: int,
        progress: Callable[[Progress], None],
        target: Path,
        bases: Sequence[Path],
        *,
        dry: bool,
        lock: int | None = None,
        careful: bool = False,
        plain: bool = False,
    ) -> Result:
        """C(careful): go on with the others when a file cannot be read; raises UnreadError otherwise.

        C(plain): without ACLs and attributes; raises AttributesFoundError when something has some.
        """
        state = Progress(time.monotonic(), **self._totals(bases))
        counter: list[threading.Thread] = []

        def tick(pid: int) -> None:
            state.bytes = bytes_read(pid) or state.bytes
            if not state.total_files and not counter and time.monotonic() - state.started > _COUNT_AFTER:
                counter.append(threading.Thread(target=count, args=(source, state), daemon=True))
                counter[0].start()
            progress(state)

        result = Result()
        argv = ["rsync", *_ARCHIVE, *([] if plain else _ATTRIBUTES), *_OUTPUT, f"--exclude=/{OWN}/"]
        argv += ["--checksum"] if self.settings.checksum else []
        argv += ["--dry-run"] if dry else []
        # rsync (3.5.0) waits for itself for ever when a file with several names cannot be read to its end, unless it
        # lists all files first, which takes longer: done only once there is such a file.
        argv += ["--no-inc-recursive"] if careful else []
        argv += self._limit()
        argv += [f"--link-dest={base / DATA}" for base in bases]
        argv += ["--", "./", f"{target}/"]
        with contextlib.ExitStack() as stack:
            known = [KnownDigests(lines_of(stack, base / LIST)) for base in bases]
            sink = None if dry else stack.enter_context((target.parent / LIST).open("wb"))
            record = Record(target, known, sink, result, state, careful=careful, plain=source if plain else None)
            try:
                ended = follow(
                    [*gentle(self.settings.nice, self.settings.ionice), *argv],
                    text=record.text,
                    tick=tick,
                    cwd=source,
                    descriptors=() if lock is None else (lock,),
                )
                record.end()
            except OSError as error:
                raise BackupError(words(error)) from error
        result.vanished = len(_VANISHED.findall(ended.errors))
        if ended.status not in (0, *_PARTLY) or _FULL.search(ended.errors):
            full = _FULL.search(ended.errors)
            raise BackupError(f"rsync: {full.group(0)}: {ended.words()}" if full else f"rsync: {ended.words()}")
        if ended.status == 23:
            result.complete = False
            result.problems.append(f"not everything could be copied: {ended.words()}")
        return result

    def _limit(self) -> list[str]:
        limit = self.settings.bandwidth_of_one
        return [f"--bwlimit={limit}"] if limit else []

    @staticmethod
    def _totals(bases: Sequence[Path]) -> dict[str, int]:
        with contextlib.suppress(BackupError, IndexError, KeyError):
            counts = Store.manifest(bases[-1])["counts"]
            return {"total_files": sum(counts[name] for name in _backup_files.COUNTED.values())}
        return {}

    def _finish(
        self, volume: Volume, partial: Path, result: Result, started: float, source: int, *, attributes: bool
    ) -> None:
        """C(attributes): whether anything in it may have ACLs or other extended attributes."""
        digest = hashlib.sha256()
        with (partial / LIST).open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        for name, content in _backup.object_files(volume.objects).items():
            write_private(partial / name, content)
        write_private(partial / MANIFEST, {
            "schema": _backup.SCHEMA,
            "kind": "Generation",
            "engine": self.name,
            "name": volume.name,
            "namespace": volume.namespace,
            "claim": volume.claim,
            "server_dir": volume.server_dir,
            "started_at": _backup.rfc3339(started),
            "finished_at": _backup.rfc3339(time.time()),
            "complete": result.complete,
            "problems": result.problems,
            "vanished": result.vanished,
            "counts": {**result.counts, "bytes": result.bytes},
            "attributes": attributes,
            "digests": "md5",
            "list_sha256": digest.hexdigest(),
        })  # fmt: skip
        # A folder that moved away during the copy is no backup of the volume.
        if os.fstat(source).st_nlink == 0:
            raise BackupError(f"{volume.server_dir} was removed during the copy")
        flush_file_system(partial)

    # --- restoring -------------------------------------------------------------------------------------

    def needed(self, generation: Generation, paths: Sequence[str]) -> tuple[int, int]:
        """Bytes and files that a restore takes. Raises BackupError, also for a path that is not in the generation."""
        return _backup_files.needed(self.entries(generation), paths, generation)

    def restore(
        self,
        generation: Generation,
        paths: Sequence[str],
        target: int,
        progress: Callable[[Progress], None],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Copy a generation, or some paths of it, into `data` in an open folder, which may hold a part of it already.

        Links between its files are kept, links to the repository are none: clients would write into it. Raises
        BackupError.
        """
        total, files = self.needed(generation, paths)
        state = Progress(time.monotonic(), total_bytes=total, total_files=files)

        def tick(pid: int) -> None:
            state.bytes = bytes_read(pid) or state.bytes
            progress(state)

        def text(lines: bytes) -> None:
            state.files += lines.count(b"\n")

        argv = ["rsync", *_ARCHIVE, *_ATTRIBUTES, "--out-format=%i", *self._limit()]
        with contextlib.ExitStack() as stack:
            names = subprocess.DEVNULL
            if paths:
                names = stack.enter_context(_name_list(paths))
                argv += ["--from0", "--files-from=-", "-r"]
            else:
                argv += ["--delete"]
            argv += ["--", f"{self.place(generation) / DATA}/", f"./{DATA}/"]
            ended = follow(
                [*gentle(self.settings.nice, self.settings.ionice), *argv],
                text=text,
                tick=tick,
                cwd=target,
                descriptors=descriptors,
                stdin=names,
            )
        if ended.status:
            raise BackupError(f"rsync: {ended.words()}")

    def compare(self, generation: Generation, paths: Sequence[str], target: str) -> _backup_files.Comparison:
        """Compare what was restored with what was recorded, content included."""
        expected = _backup_files.chosen(self.entries(generation), paths)
        return _backup_files.compare(f"{target}/{DATA}", expected, whole=not paths)

    def sample(self, generation: Generation, share: float, seed: int) -> list[str]:
        """Some files of a generation, others for another seed; [] for all of it."""
        if share >= 100:
            return []
        return _backup.sampled((os.fsdecode(e.path) for e in self.entries(generation) if e.type == "f"), share, seed)

    def check_repository(self, share: float) -> list[str]:
        """What else is wrong with the repository; a plain tree is nothing but its generations."""
        del share
        return []


@contextlib.contextmanager
def _name_list(paths: Sequence[str]) -> Iterator[int]:
    descriptor = os.memfd_create("names", 0)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(b"\0".join(os.fsencode(path) for path in paths))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
