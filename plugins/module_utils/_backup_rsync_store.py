# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of generations as plain trees.

    <repository>/clusterkit-backup.json           says that this is one
    <repository>/<namespace>/<volume>/<time>/     one generation: data/, files.list, manifest.json, objects.json, ...
    <repository>/<namespace>/<volume>/latest      a link to the newest good one
    <repository>/<namespace>/<volume>/.partial    one that is being made
    <repository>/<namespace>/<volume>/.resume.N   what killed runs had copied: it is linked from, not copied again

A generation is never written to once it has its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_files, _files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Generation, Volume
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import wait_for_lock
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings

MARKER = "clusterkit-backup.json"
MANIFEST, LIST, DATA, DAMAGED = "manifest.json", "files.list", "data", "damaged.json"
PARTIAL, RESUME, LOCK = ".partial", ".resume.", ".lock"
MINIMUM = (3, 1, 3)  # times in nanoseconds (--modify-window=-1), and the digest of a copied file in its output


class Store:
    """What there is, what is removed, and what gets its name."""

    name = "rsync"

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
            content = read_json(self.root / MARKER)
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
            raise BackupError(f"{self.root} cannot be made: {words(error)}") from error
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
        content = read_json(place / MANIFEST)
        if content.get("schema") != _backup.SCHEMA or content.get("kind") != "Generation":
            raise BackupError(f"{place}/{MANIFEST} has schema {content.get('schema')!r}; expected {_backup.SCHEMA}")
        return content

    def may_have_attributes(self, place: Path) -> bool:
        """Whether anything in a generation may have ACLs or other extended attributes, by its manifest."""
        with contextlib.suppress(BackupError):
            return self.manifest(place).get("attributes") is not False
        return True

    def objects(self, generation: Generation) -> dict[str, Any]:
        """Return the objects that can be created again, and the originals. Raises BackupError."""
        place = self.place(generation)
        return {name: read_json(place / f"{name}.json") for name in ("objects", "objects-original")}

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
            raise BackupError(f"{place}/{LIST}: {words(error)}") from error
        if digest.hexdigest() != recorded:
            raise BackupError(f"{place}/{LIST} is not what {MANIFEST} says: one of them is damaged")
        with (place / LIST).open("rb") as stream:
            for line in stream:
                yield _backup_files.read_line(line)

    # --- making and removing ---------------------------------------------------------------------------

    def newest(self, volume: Volume) -> list[Path]:
        folder = self.root / volume.key
        found = [one for one in self._of(folder) if not one.damaged] if folder.is_dir() else []
        newest = found[-1:]
        # Nothing is linked from what is older than a damaged one: it may be the same file.
        if newest and any(one.damaged and one.time > newest[0].time for one in self._of(folder)):
            return []
        return [self.place(one) for one in newest]

    @staticmethod
    def publish(folder: Path, partial: Path, started: float, *, complete: bool) -> str:
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
    def locked(self, folder: Path) -> Iterator[int]:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            wait_for_lock(descriptor, f"another run, or an rsync that it left behind, works in {folder}")
            yield descriptor
        finally:
            os.close(descriptor)

    def remove(self, generations: Sequence[Generation]) -> None:
        """Remove generations for good. Raises BackupError."""
        for one in generations:
            folder = self.root / one.key
            try:
                with self.locked(folder):
                    # Without its manifest nobody takes it for a generation any more, wherever this is stopped.
                    gone = self.place(one).rename(folder / f".removed-{one.generation}")
                    _files.sync_folder(folder)
                    for left in {gone, *folder.glob(".removed-*")}:
                        remove(left)
            except OSError as error:
                raise BackupError(f"{one.key}: {one.generation} cannot be removed: {words(error)}") from error

    def mark_damaged(self, generation: Generation, paths: Sequence[bytes]) -> None:
        """Note what does not agree with its digest, so that no later generation links to it."""
        content = {"schema": _backup.SCHEMA, "kind": "Damage", "paths": [_backup_files.shown(path) for path in paths]}
        with contextlib.suppress(OSError):
            write_private(self.place(generation) / DAMAGED, content)


def _folders(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(
            each for each in place.iterdir() if each.is_dir() and not each.is_symlink() and each.name[0] != "."
        )
    return []


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BackupError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise BackupError(f"{path} is damaged: it holds no object")
    return content


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    _files.replace_file(str(path), json.dumps(content, sort_keys=True, indent=1) + "\n", mode=0o600)


def remove(place: Path) -> None:
    """Remove a tree of ours. Raises OSError; what is not there is no error."""

    def on_error(_function: object, _path: object, error: Any) -> None:
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]

    shutil.rmtree(place, onerror=on_error)


def flush_file_system(place: Path) -> None:
    """Have everything written of the file system that a folder lies on (syncfs(2)). Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(ctypes.c_int(descriptor)):
            number = ctypes.get_errno() or errno.EIO
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(descriptor)


def words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
