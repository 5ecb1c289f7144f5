# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations as plain trees, made by rsync(1): what did not change is a hard link to the generation before.

    <repository>/clusterkit-backup.json           says that this is one
    <repository>/<namespace>/<volume>/<time>/     one generation: data/, files.list, manifest.json, objects.json, ...
    <repository>/<namespace>/<volume>/latest      a link to the newest good one
    <repository>/<namespace>/<volume>/.partial    one that is being made
    <repository>/<namespace>/<volume>/.resume.N   what killed runs had copied: it is linked from, not copied again

rsync runs in the directory of the volume and copies `./`: there is no source path that could lack its trailing slash,
or that somebody could turn into a symbolic link meanwhile. A generation is never written to once it has its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_files, _files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import (
    BackupError,
    Generation,
    Progress,
    Volume,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import Entry, KnownDigests
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import bytes_read, follow, gentle
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result, Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN

MARKER = "clusterkit-backup.json"
MANIFEST, LIST, DATA, DAMAGED = "manifest.json", "files.list", "data", "damaged.json"
PARTIAL, RESUME, LOCK = ".partial", ".resume.", ".lock"
MINIMUM = (3, 1, 3)  # times in nanoseconds (--modify-window=-1), and the digest of a copied file in its output
_LOCK_SECONDS = 30.0
_COUNT_AFTER = 10.0  # seconds after which a copy of unknown size is worth counting what is to be copied
_MOST_LINK_DESTS = 15  # rsync takes 20

# Everything that a file is; owners as numbers, since the names of clients are not those of this host. One file system.
# Times are compared to the nanosecond: a file that changes twice in a second changes twice.
_ARCHIVE = ["-aHAXS", "--numeric-ids", "--one-file-system", "--modify-window=-1"]
_OUTPUT = ["--checksum-choice=md5", "-ii", f"--out-format={_backup_files.OUT_FORMAT}"]
_PARTLY = (23, 24)  # some files could not be read; some vanished
_VANISHED = re.compile(r"^file has vanished: ", re.MULTILINE)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")


class Rsync:
    """A folder of generations."""

    name = "rsync"
    resumes = True  # a restore goes on with what an earlier one has left

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.root = Path(settings.repository)

    # --- before anything is done -----------------------------------------------------------------------

    def prepare(self, *, create: bool, check_mode: bool) -> bool:
        """Look whether the repository is there; tell whether it was, or would be, made. Raises BackupError."""
        try:
            version = subprocess.run(  # pylint: disable=ansible-bad-function
                ["rsync", "--version"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise BackupError("rsync is not installed on this host") from error
        found = re.search(r"version v?(\d+)\.(\d+)\.(\d+)", version)
        if found and tuple(map(int, found.groups())) < MINIMUM:
            raise BackupError(f"rsync {'.'.join(found.groups())} is too old; expected 3.1.3 or newer")
        if (self.root / MARKER).exists():
            content = _read_json(self.root / MARKER)
            if content.get("schema") != _backup.SCHEMA:
                raise BackupError(f"{self.root} has schema {content.get('schema')!r}; expected {_backup.SCHEMA}")
            return False
        if not create:
            what = "holds no backups" if self.root.is_dir() else "does not exist"
            raise BackupError(
                f"{self.root} {what} ({MARKER} is not there): is the disk mounted? For the first backup "
                "say create: true"
            )
        if check_mode:
            return True
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            marker = {"schema": _backup.SCHEMA, "kind": "BackupRepository", "engine": self.name}
            _files.replace_file(str(self.root / MARKER), json.dumps(marker) + "\n", mode=0o600)
        except OSError as error:
            raise BackupError(f"{self.root} cannot be made: {_words(error)}") from error
        return True

    # --- what there is ---------------------------------------------------------------------------------

    def generations(self) -> list[Generation]:
        """All complete folders. Raises BackupError for a manifest that cannot be read."""
        return [one for namespace in _folders(self.root) for volume in _folders(namespace) for one in self._of(volume)]

    def _of(self, folder: Path) -> list[Generation]:
        found = []
        for place in _folders(folder):
            if _backup.seconds_of_stamp(place.name) is None:
                continue
            try:
                manifest = self.manifest(place)
            except BackupError:
                # It cannot be trusted, but it is there, and may be all that is left.
                manifest = {"complete": False}
            found.append(
                Generation(
                    self.name,
                    place.name,
                    "" if folder.parent.name == _backup.UNCLAIMED else folder.parent.name,
                    folder.name,
                    str(manifest.get("claim") or ""),
                    _backup.seconds_of_stamp(place.name) or 0,
                    bool(manifest.get("complete")),
                    (place / DAMAGED).exists(),
                    manifest.get("counts") or {},
                )
            )
        return sorted(found, key=lambda one: one.time)

    def place(self, generation: Generation) -> Path:
        return self.root / generation.key / generation.generation

    @staticmethod
    def manifest(place: Path) -> dict[str, Any]:
        """Raises BackupError."""
        content = _read_json(place / MANIFEST)
        if content.get("schema") != _backup.SCHEMA or content.get("kind") != "Generation":
            raise BackupError(f"{place}/{MANIFEST} has schema {content.get('schema')!r}; expected {_backup.SCHEMA}")
        return content

    def objects(self, generation: Generation) -> dict[str, Any]:
        """Return the objects that can be created again, and the originals. Raises BackupError."""
        place = self.place(generation)
        return {name: _read_json(place / f"{name}.json") for name in ("objects", "objects-original")}

    def entries(self, generation: Generation) -> Iterator[Entry]:
        """The recorded files. Raises BackupError when the list is not what the manifest says."""
        place = self.place(generation)
        recorded = self.manifest(place)["list_sha256"]
        digest = hashlib.sha256()
        try:
            with (place / LIST).open("rb") as stream:
                for line in stream:
                    digest.update(line)
        except OSError as error:
            raise BackupError(f"{place}/{LIST}: {_words(error)}") from error
        if digest.hexdigest() != recorded:
            raise BackupError(f"{place}/{LIST} is not what {MANIFEST} says: one of them is damaged")
        with (place / LIST).open("rb") as stream:
            for line in stream:
                yield _backup_files.read_line(line)

    # --- backing up ------------------------------------------------------------------------------------

    def back_up(self, volume: Volume, source: int, progress: Callable[[Progress], None], *, dry: bool) -> Result:
        """Make a generation of an open directory. Raises BackupError; those that are there stay as they are."""
        if dry:
            return self._copy(source, progress, Path("/.clusterkit-backup-none"), self._newest(volume), dry=True)
        folder = self.root / volume.key
        try:
            # Volumes may be private; what they hold must not become readable by its copy.
            for each in (folder.parent, folder):
                each.mkdir(mode=0o700, exist_ok=True)
            with self._locked(folder) as lock:
                return self._make(volume, source, progress, folder, lock)
        except OSError as error:
            raise BackupError(_words(error)) from error

    def _newest(self, volume: Volume) -> list[Path]:
        folder = self.root / volume.key
        found = [one for one in self._of(folder) if not one.damaged] if folder.is_dir() else []
        newest = found[-1:]
        # Nothing is linked from what is older than a damaged one: it may be the same file.
        if newest and any(one.damaged and one.time > newest[0].time for one in self._of(folder)):
            return []
        return [self.place(one) for one in newest]

    def _make(
        self, volume: Volume, source: int, progress: Callable[[Progress], None], folder: Path, lock: int
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
            _remove(old)
        bases = resumed[: _MOST_LINK_DESTS - 1] + self._newest(volume)
        (partial / DATA).mkdir(mode=0o700, parents=True)
        partial.chmod(0o700)
        started = time.time()
        try:
            result = self._copy(source, progress, partial / DATA, bases, dry=False, lock=lock)
        except BackupError as error:
            if _FULL.search(str(error)):
                # What was copied does not help while there is no room for the rest, and others need the disk.
                for each in (partial, *resumed):
                    _remove(each)
            raise
        self._finish(volume, partial, result, started, source)
        generation = self._publish(folder, partial, started, complete=result.complete)
        for old in resumed:
            _remove(old)
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
    ) -> Result:
        state = Progress(time.monotonic(), **self._totals(bases))
        counter: list[threading.Thread] = []

        def tick(pid: int) -> None:
            state.bytes = bytes_read(pid) or state.bytes
            if not state.total_files and not counter and time.monotonic() - state.started > _COUNT_AFTER:
                counter.append(threading.Thread(target=_count, args=(source, state), daemon=True))
                counter[0].start()
            progress(state)

        result = Result()
        argv = ["rsync", *_ARCHIVE, *_OUTPUT, f"--exclude=/{OWN}/"]
        argv += ["--checksum"] if self.settings.checksum else []
        argv += ["--dry-run"] if dry else []
        argv += self._limit()
        argv += [f"--link-dest={base / DATA}" for base in bases]
        argv += ["--", "./", f"{target}/"]
        with contextlib.ExitStack() as stack:
            known = [KnownDigests(_lines_of(stack, base / LIST)) for base in bases]
            sink = None if dry else stack.enter_context((target.parent / LIST).open("wb"))
            record = _Record(target, known, sink, result, state)
            try:
                ended = follow(
                    [*gentle(self.settings.nice, self.settings.ionice), *argv],
                    line=record.line,
                    tick=tick,
                    cwd=source,
                    descriptors=() if lock is None else (lock,),
                )
            except OSError as error:
                raise BackupError(_words(error)) from error
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
            counts = Rsync.manifest(bases[-1])["counts"]
            return {"total_files": sum(counts[name] for name in _backup_files.COUNTED.values())}
        return {}

    def _finish(self, volume: Volume, partial: Path, result: Result, started: float, source: int) -> None:
        digest = hashlib.sha256()
        with (partial / LIST).open("rb") as stream:
            for line in stream:
                digest.update(line)
        for name, content in _backup.object_files(volume.objects).items():
            _write_private(partial / name, content)
        _write_private(partial / MANIFEST, {
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
            "digests": "md5",
            "list_sha256": digest.hexdigest(),
        })  # fmt: skip
        # A folder that moved away during the copy is no backup of the volume.
        if os.fstat(source).st_nlink == 0:
            raise BackupError(f"{volume.server_dir} was removed during the copy")
        _flush_file_system(partial)

    @staticmethod
    def _publish(folder: Path, partial: Path, started: float, *, complete: bool) -> str:
        name = base = _backup.stamp(started)
        number = 0
        while (folder / name).exists():
            number += 1
            name = f"{base}.{number}"
        partial.rename(folder / name)
        _files.sync_folder(folder)
        if complete:
            beside = folder / f".{_backup.LATEST}"
            beside.unlink(missing_ok=True)
            beside.symlink_to(name)
            beside.rename(folder / _backup.LATEST)
            _files.sync_folder(folder)
        return name

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[int]:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            wait_for_lock(descriptor, f"another run, or an rsync that it left behind, works in {folder}")
            yield descriptor
        finally:
            os.close(descriptor)

    # --- removing --------------------------------------------------------------------------------------

    def remove(self, generations: Sequence[Generation]) -> None:
        """Remove generations for good. Raises BackupError."""
        for one in generations:
            folder = self.root / one.key
            try:
                with self._locked(folder):
                    # Without its manifest nobody takes it for a generation any more, wherever this is stopped.
                    gone = self.place(one).rename(folder / f".removed-{one.generation}")
                    _files.sync_folder(folder)
                    for left in {gone, *folder.glob(".removed-*")}:
                        _remove(left)
            except OSError as error:
                raise BackupError(f"{one.key}: {one.generation} cannot be removed: {_words(error)}") from error

    def mark_damaged(self, generation: Generation, paths: Sequence[bytes]) -> None:
        """Note what does not agree with its digest, so that no later generation links to it."""
        content = {"schema": _backup.SCHEMA, "kind": "Damage", "paths": [_backup_files.shown(path) for path in paths]}
        with contextlib.suppress(OSError):
            _write_private(self.place(generation) / DAMAGED, content)

    # --- restoring -------------------------------------------------------------------------------------

    def needed(self, generation: Generation, paths: Sequence[str]) -> tuple[int, int]:
        """Bytes and files that a restore takes. Raises BackupError, also for a path that is not in the generation."""
        found = dict.fromkeys(paths, False)
        total = files = 0
        for entry in self.entries(generation):
            text = os.fsdecode(entry.path)
            inside = next((path for path in paths if f"{text}/".startswith(f"{path}/")), None)
            if inside is not None:
                found[inside] = True
            if not paths or inside is not None:
                total += entry.size if entry.type == _backup_files.FILE else 0
                files += 1
        missing = [path for path, there in found.items() if not there]
        if missing:
            raise BackupError(f"{generation.key}: generation {generation.generation} has no {missing[0]!r}")
        return total, files

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

        def line(text: bytes) -> None:
            if text:
                state.files += 1

        argv = ["rsync", *_ARCHIVE, "--out-format=%i", *self._limit()]
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
                line=line,
                tick=tick,
                cwd=target,
                descriptors=descriptors,
                stdin=names,
            )
        if ended.status:
            raise BackupError(f"rsync: {ended.words()}")

    def compare(self, generation: Generation, paths: Sequence[str], target: str) -> _backup_files.Comparison:
        """Compare what was restored with what was recorded, content included."""
        expected = self.entries(generation)
        if paths:
            expected = (
                entry
                for entry in expected
                if any(f"{os.fsdecode(entry.path)}/".startswith(f"{path}/") for path in paths)
            )
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


class _Record:
    """Writes the list of a generation while rsync copies it."""

    def __init__(
        self,
        target: Path,
        known: Sequence[KnownDigests],
        sink: IO[bytes] | None,
        result: Result,
        state: Progress,
    ) -> None:
        self._target = os.fsencode(target)
        self._known = known
        self._sink = sink
        self._result = result
        self._state = state
        self._of_inode: dict[tuple[int, int], bytes] = {}

    def line(self, text: bytes) -> None:
        told = _backup_files.told(text)
        if told is None:
            return
        result = self._result
        result.counts[_backup_files.COUNTED[told.type.decode()]] += 1
        self._state.files += 1
        digest = b""
        if told.type == b"f":
            result.bytes += told.size
            if told.copied:
                result.changed += 1
                result.copied_bytes += told.size
            digest = told.digest or (self._look_up(told) if self._sink else b"")
        elif told.type == b"L" and self._sink:
            digest = _backup_files.digest_of_link(self._path(told)).encode()
        if self._sink:
            self._sink.write(_backup_files.list_line(told, digest))

    def _path(self, told: _backup_files.Told) -> bytes:
        return os.path.join(self._target, _backup_files.unescaped(told.name))  # noqa: PTH118 - names are bytes

    def _look_up(self, told: _backup_files.Told) -> bytes:
        for known in self._known:
            digest = known.find(told)
            if digest:
                return digest
        # Another name of a file that has just been copied, or one of a killed run whose list stops before it.
        path = self._path(told)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return b""
        key = (found.st_dev, found.st_ino)
        if key not in self._of_inode:
            self._of_inode[key] = _backup_files.digest_of(path).encode()
        return self._of_inode[key]


def wait_for_lock(descriptor: int, words: str, seconds: float = _LOCK_SECONDS) -> None:
    """Raises BackupError when somebody else holds it for too long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BackupError(f"{words}; wait for its end") from error
            time.sleep(0.1)


def _count(source: int, state: Progress) -> None:
    """Count what is to be copied, beside the copy."""
    number = total = 0
    with contextlib.suppress(OSError):
        # Clients may put a link in the place of a directory meanwhile: fwalk notices.
        for _path, folders, files, descriptor in os.fwalk(".", dir_fd=source):
            number += len(folders) + len(files)
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
        state.total_bytes, state.total_files = total, number + 1


def _folders(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(
            each for each in place.iterdir() if each.is_dir() and not each.is_symlink() and each.name[0] != "."
        )
    return []


def _lines_of(stack: contextlib.ExitStack, path: Path) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        yield from stack.enter_context(path.open("rb"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BackupError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise BackupError(f"{path} is damaged: it holds no object")
    return content


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    _files.replace_file(str(path), json.dumps(content, sort_keys=True, indent=1) + "\n", mode=0o600)


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


def _remove(place: Path) -> None:
    """Remove a tree of ours. Raises OSError; what is not there is no error."""

    def on_error(_function: object, _path: object, error: Any) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(place, onerror=on_error)


def _flush_file_system(place: Path) -> None:
    """Have everything written of the file system that a folder lies on (syncfs(2)). Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(ctypes.c_int(descriptor)):
            number = ctypes.get_errno() or errno.EIO
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(descriptor)


def _words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
