# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of shares as records: a listing that touches no file and never leaves the file system of a share.

As a file: JSON lines, first a header {schema, kind: DirectorySet, ...}, then one record a line, with a kind of its own
for what is not a directory of the share: Intent, Quarantined.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _open_state, _tree, _users
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    open_below,
    parts_below,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import DATA, MANIFESTS
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import SCHEMA, FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Folder, Places, timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._share_base import Share, exported_paths, find_share
from ansible_collections.clusterkit.storage.plugins.module_utils._statx import Facts, Statx
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import words

KIND = "DirectorySet"
ARGUMENTS: dict[str, Any] = {
    "shares": {"type": "list", "elements": "str", "required": True},
    "parents": {"type": "list", "elements": "str", "default": []},
    "size": {"type": "bool", "default": False},
    "quarantined_size": {"type": "bool", "default": False},
    "open_state": {"type": "bool", "default": False},
    "only_for": {"type": "list", "elements": "str"},
    "timeout": {"type": "int", "default": 300},
    "objects": {"type": "bool", "default": False},
    "dest": {"type": "path"},
}
_THREADS = 4
# So many files and links of a share are named; a volume whose directory is not there may lie behind a link.
_NAMED = 1000


@dataclass
class Listing:
    """What was found. It is complete when every share and every parent could be read."""

    shares: list[dict[str, Any]] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)  # whose directories were asked for
    directories: list[tuple[str, str, Facts]] = field(default_factory=list)  # share, path
    folders: list[dict[str, Any]] = field(default_factory=list)  # Intent and Quarantined
    listed_at: str = ""
    problems: list[str] = field(default_factory=list)
    sizes: dict[str, _tree.Size] = field(default_factory=dict)
    open_by: dict[str, list[str]] = field(default_factory=dict)
    open_state: dict[str, bool] | None = None

    def header(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "shares": self.shares,
            "parents": self.parents,
            "listed_at": self.listed_at,
            "complete": not self.problems,
            "problems": self.problems,
            "open_state": self.open_state,
            "records": len(self.directories) + len(self.folders),
        }


def read(given: Mapping[str, Any], places: Places) -> Listing:
    """List what the arguments ask for. Raises ValueError when they make no sense, or a share cannot be read at all."""
    if given["open_state"] and not given["only_for"]:
        raise ValueError("only_for: open_state walks whole trees, so name the directories that it is wanted for")
    listing = Listing(listed_at=timestamp(places.now()), parents=list(given["parents"]))
    mounts = _mounts.read()
    points = {mount.path for mount in mounts.mounts}
    exported = exported_paths(places.table)
    state = _open_state.read(places.nfsd) if given["open_state"] else None
    if state is not None:
        listing.open_state = {"known": state.known, "nfsv3": state.nfsv3}
    deadline = time.monotonic() + given["timeout"]
    for path in given["shares"]:
        try:
            share = find_share(path, mounts, exported)
            with Folder(share.base, places) as folder:
                _read_share(listing, share, folder, given, points)
                _measure_named(listing, share, folder, given, state, deadline)
        except (NotBeneath, OSError) as error:
            raise ValueError(f"shares: {path}: {words(error)}") from error
    strangers = sorted(set(given["only_for"] or ()) - {path for _share, path, _facts in listing.directories})
    listing.problems += [f"only_for: {path} is not among the listed directories" for path in strangers]
    return listing


def _read_share(
    listing: Listing, share: Share, folder: Folder, given: Mapping[str, Any], points: Container[str]
) -> None:
    about: dict[str, Any] = {"path": share.path, "base": share.base, "key": share.key, "clusters": [], "lease": None}
    root = open_below(folder.base, share.parts)
    try:
        found = os.fstat(root)
        others: list[str] = []
        about.update(device=found.st_dev, inode=found.st_ino, others=_list(listing, share, root, (), points, others))
        counted = about["others"]
        for parent in given["parents"]:
            try:
                parts = parts_below(share.path, parent)
            except NotBeneath:
                continue  # of another share
            if not parts:
                continue
            try:
                descriptor = open_below(root, parts)
                try:
                    counted += _list(listing, share, descriptor, parts, points, others)
                finally:
                    os.close(descriptor)
            except FileNotFoundError:
                continue
            except (NotBeneath, OSError) as error:
                listing.problems.append(f"parents: {parent}: {words(error)}")
        about.update(other_paths=others, other_paths_complete=len(others) == counted)
    finally:
        os.close(root)
    try:
        if folder.open(create=False) or folder.exists:
            about["clusters"] = folder.clusters().get(share.key, [])
            about["lease"] = folder.lease()
            listing.folders += _intents(share, folder)
            listing.folders += _quarantined(share, folder, objects=given["objects"])
    except (FolderError, OSError) as error:
        listing.problems.append(f"{share.base}/{OWN}: {words(error)}")
    listing.shares.append(about)


def _list(
    listing: Listing, share: Share, directory: int, parts: Sequence[str], points: Container[str], named: list[str]
) -> int:
    """Note the directories in a directory; return the number of what is none, and name the first of those."""
    above = "/".join((share.path, *parts)) + "/"
    facts = Statx().facts
    others = 0
    add = listing.directories.append
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if not entry.is_dir(follow_symlinks=False):
                others += 1
                if len(named) < _NAMED:
                    named.append(above + name)
            elif name != OWN:
                try:
                    found = facts(directory, name)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(found.mode):
                    path = above + name
                    if path in points:
                        found = found._replace(mount_point=True)
                    add((share.path, path, found))
    return others


def _intents(share: Share, folder: Folder) -> Iterator[dict[str, Any]]:
    for name in folder.intent_names():
        intent = folder.read_intent(name)
        if intent is not None and intent["share"] == share.key:
            yield {
                "kind": "Intent",
                "share": share.path,
                "restored": intent["kind"] == "Manifest",
                **{key: intent[key] for key in _TOLD},
                "directory": f"{share.path}/{intent['below']}".rstrip("/"),
                "objects": intent["objects"],
            }


_TOLD = ("at", "by", "cluster_uid", "device", "inode", "plan", "reason", "scope", "volume")


def _quarantined(share: Share, folder: Folder, *, objects: bool) -> Iterator[dict[str, Any]]:
    for name in folder.entry_names():
        try:
            entry = folder.open_entry(name)
            if entry is None:
                continue
            with entry:
                found, data = entry.read(), entry.data()
        except (FolderError, NotBeneath) as error:
            raise FolderError(f"trash/{name}: {error}") from error
        if found is None or found[1]["share"] != share.key:
            continue
        state, manifest = found
        told = {
            "kind": "Quarantined",
            "share": share.path,
            "entry": name,
            "state": MANIFESTS[state],
            **{key: manifest[key] for key in _TOLD},
            "quarantined_at": manifest["quarantined_at"],
            "directory": f"{share.path}/{manifest['below']}".rstrip("/"),
            "device": data.st_dev if data is not None else None,
            "inode": data.st_ino if data is not None else None,
        }
        if objects:
            told["objects"] = manifest["objects"]
        yield told


# --- size and open state -----------------------------------------------------------------------------------


class _Walk(NamedTuple):
    """One that is to be measured: the way to it from an open directory, and its record if it is in quarantine."""

    name: str
    start: int
    parts: Sequence[str]
    quarantined: dict[str, Any] | None = None


def _measure_named(
    listing: Listing,
    share: Share,
    folder: Folder,
    given: Mapping[str, Any],
    state: _open_state.OpenState | None,
    deadline: float,
) -> None:
    """Walk the trees that size and open state are wanted of, several at a time; in quarantine the oldest first."""
    wanted = set(given["only_for"] or ())
    waiting: SimpleQueue[_Walk] = SimpleQueue()
    if given["size"] or state is not None:
        for of_share, path, facts in listing.directories:
            if of_share == share.path and (not wanted or path in wanted) and not facts.mount_point:
                waiting.put(_Walk(path, folder.base, (*share.parts, *parts_below(share.path, path))))
    if given["quarantined_size"]:
        for record in sorted(listing.folders, key=lambda one: str(one.get("quarantined_at"))):
            if record["kind"] == "Quarantined" and record["share"] == share.path and record["inode"] is not None:
                waiting.put(_Walk(record["entry"], folder.trash, (record["entry"], DATA), record))
    inodes = state.inodes(folder.device) if state is not None else {}

    def measure(walk: _Walk, descriptor: int) -> None:
        if walk.quarantined is not None:
            walk.quarantined.update(_told(_tree.measure(descriptor, deadline)))
            return
        if given["size"]:
            listing.sizes[walk.name] = _tree.measure(descriptor, deadline)
        if state is not None and state.known:
            found = _tree.find_inode(descriptor, inodes) if inodes else None
            listing.open_by[walk.name] = sorted(inodes[found]) if found is not None else []

    def work() -> None:
        while True:
            try:
                walk = waiting.get_nowait()
            except Empty:
                return
            try:
                descriptor = open_below(walk.start, walk.parts)
            except (NotBeneath, OSError) as error:
                listing.problems.append(f"{walk.name}: {words(error)}")
                continue
            try:
                measure(walk, descriptor)
            except OSError as error:
                listing.problems.append(f"{walk.name}: {words(error)}")
            finally:
                os.close(descriptor)

    threads = [threading.Thread(target=work) for _number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- as lines ----------------------------------------------------------------------------------------------


def lines(listing: Listing) -> Iterator[str]:
    """The listing as lines of JSON, without line ends."""
    yield json.dumps(listing.header(), sort_keys=True)
    owners: dict[int, str] = {}
    groups: dict[int, str] = {}
    for share, path, facts in listing.directories:
        device, inode, uid, gid, mode, mtime, ctime, birthtime, mount_point = facts
        if uid not in owners:
            owners[uid] = quoted(_users.user_name(uid))
        if gid not in groups:
            groups[gid] = quoted(_users.group_name(gid))
        more = _more(listing, path) if listing.sizes or listing.open_by else ""
        born = "null" if birthtime is None else f"{birthtime:.6f}"
        yield (
            f'{{"kind": "Directory", "share": {quoted(share)}, "path": {quoted(path)}, "device": {device}, '
            f'"inode": {inode}, "uid": {uid}, "gid": {gid}, "owner": {owners[uid]}, "group": {groups[gid]}, '
            f'"mode": "{mode & 0o7777:04o}", "mtime": {mtime:.6f}, "ctime": {ctime:.6f}, "birthtime": {born}, '
            f'"mount_point": {"true" if mount_point else "false"}{more}}}'
        )
    for record in listing.folders:
        yield json.dumps(record, sort_keys=True)


def _more(listing: Listing, path: str) -> str:
    told: dict[str, Any] = {}
    size = listing.sizes.get(path)
    if size is not None:
        told.update(_told(size))
    if path in listing.open_by:
        told["open_by"] = listing.open_by[path]
    return "".join(f", {quoted(key)}: {json.dumps(value)}" for key, value in told.items())


def _told(size: _tree.Size) -> dict[str, Any]:
    return {"size": size.bytes, "files": size.files, "size_complete": size.complete}


def result(listing: Listing, dest: str | None) -> dict[str, Any]:
    """What the module returns; with `dest` the records go there."""
    told: dict[str, Any] = listing.header()
    for key in ("schema", "kind", "records", "parents"):
        del told[key]
    told["counts"] = {
        "directories": len(listing.directories),
        "intents": sum(record["kind"] == "Intent" for record in listing.folders),
        "quarantined": sum(record["kind"] == "Quarantined" for record in listing.folders),
    }
    told.update(directories=[], intents=[], quarantined=[])
    if dest:
        replace_lines(dest, lines(listing))
        return {**told, "dest": dest}
    places = {"Directory": "directories", "Intent": "intents", "Quarantined": "quarantined"}
    for number, line in enumerate(lines(listing)):
        if number:
            record = json.loads(line)
            told[places[record.pop("kind")]].append(record)
    return told
