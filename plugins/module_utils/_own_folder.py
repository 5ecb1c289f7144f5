# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder `.clusterkit` of a file system with shares: who may use it, what is intended, what is in quarantine.

    share.json      the clusters that use each share
    lease.json      which controller works here now
    lock            held by the one process that works here now
    journal.jsonl   what was done, by whom
    intents/        what is about to be done with a volume, with all its objects
    trash/NAME/     one quarantined directory: `data`, beside its manifest

The name of a manifest is the state of its folder, and changes by a rename, which needs no space on a full disk:
manifest.json (in quarantine), restoring.json (on its way back), purging.json (being removed for good).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _files, _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OPEN_DIRECTORY,
    OWN,
    NotBeneath,
    drop_project,
    look,
    mount_id,
    open_below,
    open_root,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._open_state import NFSD
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import MANIFESTS, Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import (
    NEW,
    SCHEMA,
    FolderError,
    read_json,
    slug,
    write_json,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_of

LEASE_SECONDS = 15 * 60
_RENEW_SECONDS = 30
_LOCK_SECONDS = 10.0
INTENTS, TRASH = "intents", "trash"
RESTORED = "restored-"  # before the name of an intent: the directory is back, the objects may not be
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Places:
    """Where a server keeps what has to be known about it; the clock, too."""

    nfsd: str = NFSD
    table: str = "/var/lib/nfs/etab"
    boot_id: str = "/proc/sys/kernel/random/boot_id"

    def now(self) -> float:
        return time.time()


def timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# --- the folder --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """Who holds a lease: a process of a controller."""

    controller: str
    boot_id: str
    pid: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Owner:
        return cls(str(data["controller"]), str(data["boot_id"]), int(data["pid"]))

    def __str__(self) -> str:
        return f"process {self.pid} of {self.controller}"

    def data(self) -> dict[str, Any]:
        return {"controller": self.controller, "boot_id": self.boot_id, "pid": self.pid}


class Folder:
    """`.clusterkit` in an open base directory."""

    def __init__(self, base: str, places: Places) -> None:
        self.base_path = base
        self.places = places
        self.base = open_root(base)
        self.own = -1
        self.intents = -1
        self.trash = -1
        self._lock = -1
        self._lease: tuple[Owner, float] | None = None
        self.warnings: list[str] = []

    def close(self) -> None:
        for descriptor in (self.base, self.own, self.intents, self.trash, self._lock):
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def exists(self) -> bool:
        return self.trash >= 0

    @property
    def device(self) -> str:
        """The device of the file system as nfsd and mountinfo call it, which on some differs from stat's."""
        number = mount_id(self.base)
        for mount in _mounts.read().mounts:
            if mount.mount_id == number:
                return mount.device
        found = os.fstat(self.base).st_dev
        return f"{os.major(found)}:{os.minor(found)}"

    def open(self, *, create: bool) -> bool:
        """Open the folder, or make it; tell whether it was made. Raises FolderError when it is not ours."""
        made = False
        self.own, new = self._folder(self.base, OWN, create=create)
        made |= new
        if self.own < 0:
            return made
        for name in (INTENTS, TRASH):
            descriptor, new = self._folder(self.own, name, create=create)
            made |= new
            setattr(self, name, descriptor)
        return made

    def _folder(self, above: int, name: str, *, create: bool) -> tuple[int, bool]:
        made = False
        found = look(above, name)
        if found is None and create:
            os.mkdir(name, 0o700, dir_fd=above)
            made = True
        elif found is None:
            return -1, False
        where = f"{self.base_path}/{OWN}" if name == OWN else f"{self.base_path}/{OWN}/{name}"
        try:
            descriptor = open_below(above, [name])
        except (NotBeneath, NotADirectoryError) as error:
            raise FolderError(f"{where} is no plain directory: {error}; somebody else made it") from error
        mine = os.fstat(descriptor)
        if mine.st_uid != os.geteuid() or mine.st_mode & 0o077:
            os.close(descriptor)
            raise FolderError(
                f"{where} belongs to user {mine.st_uid} with mode {stat.S_IMODE(mine.st_mode):04o}; expected user "
                f"{os.geteuid()} and 0700: look at what is in it, and who put it there, before you correct that"
            )
        if made:
            drop_project(descriptor)
            sync(above)
        return descriptor, made

    # Owners of shares ----------------------------------------------------------------------------------

    def clusters(self) -> dict[str, list[str]]:
        """Return the clusters of each share, by its key."""
        if not self.exists:
            return {}
        found = read_json(self.own, "share.json", "Share") or {"shares": {}}
        return {key: list(share["clusters"]) for key, share in found["shares"].items()}

    def write_clusters(self, clusters: Mapping[str, Sequence[str]]) -> None:
        shares = {key: {"clusters": sorted(uids)} for key, uids in clusters.items()}
        write_json(self.own, "share.json", {"schema": SCHEMA, "kind": "Share", "shares": shares})

    # One at a time -------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Keep other processes off, until this one ends. Raises FolderError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._lock = os.open("lock", flags, 0o600, dir_fd=self.own)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise FolderError(f"another run works in {self.base_path}/{OWN}; wait for its end") from error
                time.sleep(0.1)

    def lease(self) -> dict[str, Any] | None:
        """Return the lease as it stands."""
        return read_json(self.own, "lease.json", "Lease") if self.exists else None

    def lease_problem(self, owner: Owner, dead: Sequence[int], *, allow_break: bool) -> str | None:
        """Return why this owner may not have the lease, None if it may."""
        try:
            found = self.lease()
            if found is None or allow_break:
                return None
            holder, expires = Owner.of(found["owner"]), seconds_of(found["expires_at"])
        except (FolderError, KeyError, TypeError, ValueError) as error:
            if allow_break:
                return None
            return (
                f"{self.base_path}/{OWN}/lease.json cannot be read ({error}); if no other run is at work here, "
                "allow_break_lease: true replaces it"
            )
        if holder == owner:
            return None
        if holder.controller == owner.controller and (holder.boot_id != owner.boot_id or holder.pid in dead):
            return None
        remaining = expires - self.places.now()
        if remaining <= 0:
            return None
        if remaining > LEASE_SECONDS + 60:
            why = f"which is more than {LEASE_SECONDS // 60} minutes away: the clock of this server was, or is, wrong"
        else:
            why = f"in {remaining / 60:.0f} minutes"
        return (
            f"{holder} holds the lease of {self.base_path}/{OWN} until {found['expires_at']}, {why}; wait, or say "
            "allow_break_lease: true if it is certain that it does not work here any more"
        )

    def take_lease(self, owner: Owner, *, needs_space: bool) -> None:
        """Write the lease. Where no space is needed for the work itself, a full disk is no reason to stop."""
        now = self.places.now()
        try:
            write_json(self.own, "lease.json", {
                "schema": SCHEMA, "kind": "Lease", "owner": owner.data(), "renewed_at": timestamp(now),
                "expires_at": timestamp(now + LEASE_SECONDS),
            })  # fmt: skip
        except OSError as error:
            if needs_space or error.errno not in _NO_SPACE:
                raise
            self.warnings.append(f"{self.base_path}/{OWN}/lease.json could not be renewed: {error.strerror}")
        self._lease = (owner, time.monotonic())

    def renew_lease(self, *, needs_space: bool = False) -> None:
        """Renew the lease when it is time. Raises FolderError when somebody else has taken it."""
        if self._lease is None:
            raise AssertionError("taken before anything is done")
        owner, renewed = self._lease
        passed = time.monotonic() - renewed
        if passed < _RENEW_SECONDS:
            return
        found = self.lease()
        if found is not None and Owner.of(found["owner"]) != owner:
            raise FolderError(f"{Owner.of(found['owner'])} has taken the lease of {self.base_path}/{OWN} meanwhile")
        self.take_lease(owner, needs_space=needs_space)

    def drop_lease(self) -> None:
        if self._lease is None:
            return
        found = self.lease()
        if found is not None and Owner.of(found["owner"]) == self._lease[0]:
            os.unlink("lease.json", dir_fd=self.own)
            sync(self.own)
        self._lease = None

    # What was done -------------------------------------------------------------------------------------

    def write_journal(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append to the journal, flushed. A line that a power cut tore stays a line of its own."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        now = timestamp(self.places.now())
        data = b"".join(
            (json.dumps({"schema": SCHEMA, "time": now, **line}, sort_keys=True) + "\n").encode() for line in lines
        )
        try:
            descriptor = os.open("journal.jsonl", flags, 0o600, dir_fd=self.own)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    data = b"\n" + data
                _files.write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.warnings.append(f"{self.base_path}/{OWN}/journal.jsonl could not be written: {error.strerror}")

    # Intents -------------------------------------------------------------------------------------------

    def intent_names(self) -> list[str]:
        return sorted(name for name in names_in(self.intents) if name.endswith(".json") and name[0] != ".")

    def read_intent(self, name: str) -> dict[str, Any] | None:
        return read_json(self.intents, name, ("Intent", "Manifest"))

    # Quarantine ----------------------------------------------------------------------------------------

    def entry_names(self) -> list[str]:
        return sorted(names_in(self.trash))

    def open_entry(self, name: str) -> Entry | None:
        """Return a quarantined directory, None when there is none of that name. Raises FolderError, NotBeneath."""
        if not name or "/" in name or name in (".", "..") or "\0" in name:
            raise FolderError(f"{name!r} is not the name of a quarantined directory")
        if not self.exists or look(self.trash, name) is None:
            return None
        return Entry(name, open_below(self.trash, [name]))

    def make_entry(self, name: str) -> Entry:
        """Make the folder for a directory; it is certain that nothing is in it, and that nobody else can get in."""
        for number in range(100):
            candidate = f"{name}.{number}" if number else name
            try:
                os.mkdir(candidate, 0o700, dir_fd=self.trash)
            except FileExistsError:
                continue
            descriptor = open_below(self.trash, [candidate])
            drop_project(descriptor)
            return Entry(candidate, descriptor)
        raise FolderError(f"{self.base_path}/{OWN}/{TRASH}/{name} and 99 more of that name are there already")

    def remove_entry(self, entry: Entry) -> None:
        """Remove the folder of an entry whose data is gone."""
        for name in names_in(entry.descriptor):
            if name in MANIFESTS or name.endswith(NEW):
                os.unlink(name, dir_fd=entry.descriptor)
        os.rmdir(entry.name, dir_fd=self.trash)


def intent_name(volume: Mapping[str, Any]) -> str:
    return f"{slug(volume['name'])}-{volume['uid']}.json"


def uid_problem(uid: Any) -> str | None:
    return None if isinstance(uid, str) and _UID.fullmatch(uid) else f"{uid!r} is no uid"


def names_in(directory: int) -> Iterator[str]:
    """The names in an open directory, in no order."""
    # A descriptor of its own: scandir reads from where the last one stopped.
    descriptor = os.open(".", OPEN_DIRECTORY, dir_fd=directory)
    try:
        yield from os.listdir(descriptor)  # noqa: PTH208 - a descriptor has no path
    finally:
        os.close(descriptor)
