# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run that was ended in the middle has left in the trash: it is finished, or undone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OPEN_DIRECTORY,
    open_below,
    parts_below,
    rename_to_free_name,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import (
    DATA,
    MANIFEST,
    PURGING,
    RESTORING,
    Entry,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    RESTORED,
    Folder,
    intent_name,
    names_in,
)


def recover(folder: Folder, name: str) -> str:
    """Finish or undo what was begun with an entry; return what was done, "" for nothing.

    Raises FolderError, NotBeneath, OSError or KeyError for what nobody may touch before a person has looked at it.
    """
    entry = folder.open_entry(name)
    if entry is None:
        return ""
    with entry:
        data = entry.data()
        state = _read_or_torn(entry)
        if state is None:
            if data is not None and entry.data() is not None:
                raise FolderError("there is data without a manifest; look at it, nothing is done with it")
            drop(folder, entry)
            return "removed, it was empty"
        stage, manifest = state
        if stage == PURGING:
            if data is not None:
                return ""  # the next purge goes on with it
            drop(folder, entry)
            return "its removal was finished"
        if stage == RESTORING:
            return _recover_return(folder, entry, manifest, data)
        return _recover_quarantine(folder, entry, manifest, data)


def _recover_return(folder: Folder, entry: Entry, manifest: Mapping[str, Any], data: os.stat_result | None) -> str:
    if data is not None and manifest["scope"] == "content" and not is_filled(entry):
        os.rmdir(DATA, dir_fd=entry.descriptor)
        data = None
    if data is None:
        finish_return(folder, entry, manifest)
        return "its return was finished"
    entry.set_state(RESTORING, MANIFEST)
    return "its return was undone, it is in quarantine"


def _recover_quarantine(folder: Folder, entry: Entry, manifest: Mapping[str, Any], data: os.stat_result | None) -> str:
    volume = manifest["volume"]
    name = intent_name(volume) if volume else ""
    intent = folder.read_intent(name) if volume else None
    is_open = intent is not None and intent["at"] == manifest.get("intent_at")
    if data is None or (manifest["scope"] == "content" and not is_filled(entry)):
        if volume and not is_open:
            if data is not None:
                return ""  # the volume was empty
            raise FolderError("there is no data beside the manifest; somebody else has taken it away")
        if data is not None:
            os.rmdir(DATA, dir_fd=entry.descriptor)
        drop(folder, entry)
        return "it had not been moved yet"
    if manifest["scope"] == "content":
        return ""  # the step that is planned again goes on with it
    if data.st_ino != manifest["inode"]:
        return _recover_stranger(folder, entry, manifest)
    if is_open:
        os.unlink(name, dir_fd=folder.intents)
        sync(folder.intents)
        return "its intent was closed, it is in quarantine"
    return ""


def _recover_stranger(folder: Folder, entry: Entry, manifest: Mapping[str, Any]) -> str:
    """What was moved is not what was planned, and the run was killed before it could put it back."""
    if set(names_in(entry.descriptor)) != {MANIFEST, DATA}:
        raise FolderError("what lies in it is not what its manifest says; look at it, nothing is done with it")
    share = "" if manifest["share"] == "." else f"/{manifest['share']}"
    parts = parts_below("/", f"{share}/{manifest['below']}")
    parent = open_below(folder.base, parts[:-1])
    try:
        rename_to_free_name(entry.descriptor, DATA, parent, parts[-1])
        sync(parent)
    finally:
        os.close(parent)
    drop(folder, entry)
    return "what had been moved was not what was planned, it is back in its place"


def finish_return(folder: Folder, entry: Entry, manifest: Mapping[str, Any]) -> None:
    """The data is back. Keep the objects of the volume until somebody says that they are back, too."""
    if manifest["volume"]:
        name = RESTORED + intent_name(manifest["volume"])
        os.rename(RESTORING, name, src_dir_fd=entry.descriptor, dst_dir_fd=folder.intents)
        sync(folder.intents)
    drop(folder, entry)


def drop(folder: Folder, entry: Entry) -> None:
    """Remove the folder of an entry whose data is gone."""
    folder.remove_entry(entry)
    sync(folder.trash)


def is_filled(entry: Entry) -> bool:
    """Whether there is anything in the data of an entry."""
    descriptor = os.open(DATA, OPEN_DIRECTORY, dir_fd=entry.descriptor)
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is not None
    finally:
        os.close(descriptor)


def _read_or_torn(entry: Entry) -> tuple[str, dict[str, Any]] | None:
    """A manifest that was being written when the run ended counts as none, as long as there is no data."""
    try:
        return entry.read()
    except FolderError:
        if entry.data() is not None and is_filled(entry):
            raise
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(DATA, dir_fd=entry.descriptor)
        return None
