# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of volumes on their way into quarantine."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    identity,
    open_below,
    rename_to_free_name,
    sync,
    sync_all,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import (
    DATA,
    MANIFEST,
    Entry,
    entry_key,
    entry_name,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import write_new
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    Folder,
    intent_name,
    names_in,
    timestamp,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import Step
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_intend import Intending
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import (
    Stop,
    across,
    not_planned,
    words,
)

# So many directories are prepared, flushed, moved and flushed together; each holds a few descriptors.
_BATCH = 100
_CONTENT_ROUNDS = 5


@dataclass
class _Moving:
    """A directory on its way into quarantine."""

    step: Step
    folder: Folder
    parent: int  # of content: the directory itself
    name: str
    found: os.stat_result
    intent: str | None
    entry: Entry | None = None
    manifest: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def opened(self) -> Entry:
        """The entry, once its manifest was written."""
        if self.entry is None:
            raise AssertionError("nothing is moved without it")
        return self.entry


class Quarantine(Intending):
    """A run that moves into quarantine."""

    def _quarantine(self, steps: Sequence[Step]) -> None:
        for batch in _batches(steps, _BATCH):
            with contextlib.ExitStack() as stack:
                self._quarantine_batch(batch, stack)
            for folder in self.folders.values():
                self._write_journal(folder)

    def _quarantine_batch(self, steps: Sequence[Step], stack: contextlib.ExitStack) -> None:
        ready = []
        for step in steps:
            moving = self._try(step, self._prepare, step, stack)
            if moving is not None:
                ready.append(moving)
        if self.request.check_mode:
            for moving in ready:
                self._tell_quarantined(moving, "")
            return
        written = [m for m in ready if self._try(m.step, self._write_manifest, m, stack)]
        if not self._flushed(written):
            return
        moved = [moving for moving in written if self._try(moving.step, self._move, moving)]
        try:
            self._settle(moved)
        except OSError as error:
            for moving in moved:
                moving.problems.append(f"it was moved, but that could not be flushed: {words(error)}")
        for moving in moved:
            entry = moving.opened.name
            if moving.problems:
                self._tell(moving.step, "failed", "; ".join(moving.problems[:5]), entry, changed=True)
            else:
                self._tell_quarantined(moving, entry)

    def _settle(self, moved: Sequence[_Moving]) -> None:
        """Flush what was moved; only then nobody needs the intents any more."""
        for group in _by_folder(moved):
            # Most of them have the same parent, open under many descriptors.
            parents = {identity(os.fstat(moving.parent)): moving.parent for moving in group}
            sync_all([*parents.values(), *(moving.opened.descriptor for moving in group)])
        done = [moving for moving in moved if moving.intent and not moving.problems]
        for moving in done:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(moving.intent or "", dir_fd=moving.folder.intents)
        self._flush({moving.folder.intents for moving in done})

    def _tell_quarantined(self, moving: _Moving, entry: str) -> None:
        self._tell(moving.step, "changed", entry=entry)
        what = f"{moving.step.directory} (inode {moving.found.st_ino})"
        content = "content of " if moving.step.scope == "content" else ""
        self._differ(f"{content}{what}", f"{moving.folder.base_path}/{OWN}/trash/{entry or '...'}")

    def _prepare(self, step: Step, stack: contextlib.ExitStack) -> _Moving | None:
        """Judge a step; nothing is changed here."""
        self._check_owner(step)
        self._check_surroundings(step)
        folder = self._folder(step)
        try:
            parent, name, found, descriptor = self._find_directory(step)
        except FileNotFoundError:
            if self._is_quarantined(step):
                return None
            raise
        if step.scope == "content":
            os.close(parent)
            parent, name = descriptor, ""
        else:
            stack.callback(os.close, descriptor)
        stack.callback(os.close, parent)
        try:
            intent = self._intent_of(step, folder, found)
        except Stop:
            if step.scope == "content" and not self._movable(step, parent) and self._is_quarantined(step):
                return None
            raise
        self._check_open_state(descriptor, folder)
        return _Moving(step, folder, parent, name, found, intent)

    def _intent_of(self, step: Step, folder: Folder, found: os.stat_result) -> str | None:
        if step.volume is None:
            return None
        name = intent_name(step.volume)
        intent = folder.read_intent(name)
        if intent is None:
            name = step.volume["name"]
            raise Stop("refused", f"there is no open intent for volume {name}; run state: intended first")
        if intent["inode"] != found.st_ino or intent["share"] != self.shares[step.share].key:
            raise Stop("refused", f"the open intent is for {intent['directory']}, inode {intent['inode']}")
        if intent["scope"] != step.scope:
            raise Stop("refused", f"the open intent has scope {intent['scope']}")
        return name

    def _is_quarantined(self, step: Step) -> bool:
        """Tell of a step that was done before, and say so."""
        for entry, manifest in self._entries_of(step):
            if manifest["inode"] == (step.precondition or (0, 0))[1] and manifest["scope"] == step.scope:
                self._tell(step, "unchanged", f"is in quarantine since {manifest['quarantined_at']}", entry)
                return True
        return False

    def _entries_of(self, step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read the manifests of what was quarantined from the place of this step."""
        folder = self._folder(step)
        if folder.base_path not in self._entries:
            index: dict[str, list[str]] = {}
            for name in folder.entry_names():
                index.setdefault(entry_key(name), []).append(name)
            self._entries[folder.base_path] = index
        key = entry_key(entry_name(0, step.volume, step.directory or "", (step.precondition or (0, 0))[1]))
        for name in self._entries[folder.base_path].get(key, []):
            entry = folder.open_entry(name)
            if entry is not None:
                with entry:
                    state = entry.read()
                if state is not None and state[0] == MANIFEST and state[1]["below"] == "/".join(self._path_below(step)):
                    yield name, state[1]

    def _write_manifest(self, moving: _Moving, stack: contextlib.ExitStack) -> bool:
        step, folder, found = moving.step, moving.folder, moving.found
        intent = folder.read_intent(moving.intent) if moving.intent else None
        if step.scope == "content":
            resumed = self._unfinished(step, intent)
            if resumed is not None:
                moving.entry = resumed
                stack.callback(resumed.close)
                return True
        manifest = self._record(step, found, "Manifest")
        if intent is not None:
            manifest.update(objects=intent["objects"], intent_at=intent["at"])
            manifest["reason"] = step.reason or intent["reason"]
        now = self.places.now()
        manifest.update(
            quarantined_at=timestamp(now),
            controller_time=self.request.controller_time,
            uid=found.st_uid,
            gid=found.st_gid,
            mode=f"{stat.S_IMODE(found.st_mode):04o}",
        )
        entry = folder.make_entry(entry_name(now, step.volume, step.directory or "", found.st_ino))
        stack.callback(entry.close)
        manifest["entry"] = entry.name
        try:
            moving.manifest = write_new(entry.descriptor, MANIFEST, manifest)
            stack.callback(os.close, moving.manifest)
            if step.scope == "content":
                os.mkdir(DATA, 0o700, dir_fd=entry.descriptor)
        except BaseException:
            self._forget(folder, entry)
            raise
        moving.entry = entry
        return True

    def _unfinished(self, step: Step, intent: Mapping[str, Any] | None) -> Entry | None:
        """Return the entry that a killed run had begun to fill with the content of this volume."""
        for name, manifest in self._entries_of(step):
            if intent is not None and manifest.get("intent_at") == intent["at"] and manifest["scope"] == "content":
                return self._folder(step).open_entry(name)
        return None

    def _forget(self, folder: Folder, entry: Entry) -> None:
        """Remove an entry that holds no data. Whatever keeps it is left to the next run."""
        with contextlib.suppress(OSError):
            if entry.data() is not None:
                os.rmdir(DATA, dir_fd=entry.descriptor)
            folder.remove_entry(entry)

    def _flushed(self, written: Sequence[_Moving]) -> bool:
        """Before anything is moved its manifest must be on the disk."""
        try:
            for group in _by_folder(written):
                manifests = [moving.manifest for moving in group if moving.manifest is not None]
                sync_all([*manifests, *(moving.opened.descriptor for moving in group), group[0].folder.trash])
        except OSError as error:
            for moving in written:
                self._forget(moving.folder, moving.opened)
                self._tell(moving.step, "failed", f"the manifest could not be flushed: {words(error)}")
            return False
        return True

    @staticmethod
    def _flush(descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            sync(descriptor)

    def _move(self, moving: _Moving) -> bool:
        if moving.step.scope == "content":
            self._move_content(moving)
            return True
        entry, folder = moving.opened, moving.folder
        try:
            rename_to_free_name(moving.parent, moving.name, entry.descriptor, DATA)
        except OSError as error:
            self._forget(folder, entry)
            raise across(error) from error
        moved = entry.data()
        if moved is None or identity(moved) != moving.step.precondition:
            self._put_back(moving, moved)
        return True

    def _put_back(self, moving: _Moving, moved: os.stat_result | None) -> None:
        """Somebody put something else under the name at the last moment."""
        what = not_planned(moving.step, moved) if moved is not None else f"{moving.step.directory} was taken away"
        if moved is not None:
            try:
                rename_to_free_name(moving.opened.descriptor, DATA, moving.parent, moving.name)
            except OSError as error:
                raise Stop(
                    "failed", f"{what}, and cannot be put back ({words(error)}): it lies in {moving.opened.name}"
                ) from error
            self._flush({moving.parent, moving.opened.descriptor})
        self._forget(moving.folder, moving.opened)
        raise Stop("stale", what)

    def _movable(self, step: Step, descriptor: int) -> list[str]:
        """Return what is in a directory and belongs to the volume."""
        names = list(names_in(descriptor))
        if (step.directory or "") in self.mount_points:
            names = [name for name in names if name != "lost+found"]
        return sorted(name for name in names if name != OWN)

    def _move_content(self, moving: _Moving) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(DATA, 0o700, dir_fd=moving.opened.descriptor)
        data = open_below(moving.opened.descriptor, [DATA])
        try:
            for _round in range(_CONTENT_ROUNDS):
                moving.problems = []
                names = self._movable(moving.step, moving.parent)
                if not names:
                    break
                for name in names:
                    try:
                        rename_to_free_name(moving.parent, name, data, name)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        moving.problems.append(words(error))
            else:
                left = self._movable(moving.step, moving.parent)
                if left and not moving.problems:
                    moving.problems.append(f"somebody keeps writing, there is {left[0]!r} again")
            sync(data)
        finally:
            os.close(data)


def _by_folder(movings: Iterable[_Moving]) -> Iterable[list[_Moving]]:
    """Return them by file system: each has one folder."""
    groups: dict[str, list[_Moving]] = {}
    for moving in movings:
        groups.setdefault(moving.folder.base_path, []).append(moving)
    return groups.values()


def _batches(steps: Iterable[Step], size: int) -> Iterator[list[Step]]:
    batch: list[Step] = []
    for step in steps:
        batch.append(step)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
