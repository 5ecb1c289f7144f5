# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in the folder `.clusterkit` of a file system: JSON that lives for years, complete or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _files
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import sync

SCHEMA = 1
NEW = ".clusterkit-new"  # behind a name: a file that is being written
_MAX_FILE = 64 * 2**20
_INTENT_KEYS = frozenset(
    {"at", "below", "by", "cluster_uid", "device", "directory", "inode", "objects"}
    | {"owner", "plan", "reason", "scope", "share", "step", "volume"}
)
# What a reader may rely on.
_KEYS = {
    "Share": frozenset({"shares"}),
    "Lease": frozenset({"owner", "expires_at"}),
    "Intent": _INTENT_KEYS,
    "Manifest": _INTENT_KEYS | {"entry", "quarantined_at"},
}


class FolderError(Exception):
    """Why nothing can be done in a folder."""


def read_json(directory: int, name: str, kind: str | Sequence[str]) -> dict[str, Any] | None:
    """Return one of our files, None when it is not there. Raises FolderError for what is no such file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FolderError(f"{name} is no file")
        try:
            content = json.loads(stream.read(_MAX_FILE))
        except ValueError as error:
            raise FolderError(f"{name} is damaged: {error}") from error
    kinds = [kind] if isinstance(kind, str) else kind
    if not isinstance(content, dict) or content.get("kind") not in kinds:
        raise FolderError(f"{name} is no {' or '.join(kinds)}")
    if content.get("schema") != SCHEMA:
        raise FolderError(f"{name} has schema {content.get('schema')!r}; expected {SCHEMA}: use a newer release")
    missing = sorted(_KEYS[content["kind"]] - set(content))
    if missing:
        raise FolderError(f"{name} is damaged: {missing[0]} is missing")
    return content


def write_json(directory: int, name: str, content: Mapping[str, Any]) -> None:
    """Write a file that is complete or not there, flushed before this returns."""
    beside = f".{name}{NEW}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)
    try:
        descriptor = write_new(directory, beside, content)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=directory)
        raise
    sync(directory)


def write_new(directory: int, name: str, content: Mapping[str, Any]) -> int:
    """Write a file that must not be there yet; return its descriptor, for the caller to flush and to close."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        _files.write_all(descriptor, (json.dumps(content, sort_keys=True) + "\n").encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def slug(text: str) -> str:
    """Return a name as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", text).lstrip(".")[:120] or "_"
