# SPDX-License-Identifier: GPL-3.0-or-later
"""A file server's disk for tests of volume_dirs: shares, volumes, and what lies around them.

No nfsd: that its kernel code names open files as these tests write them has to be seen on the lab.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _volume_dirs,
    _volume_dirs_info,
    _volume_dirs_run,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import Outcome

CLUSTER = "6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"
OTHER_CLUSTER = "00000000-8a9e-4b55-9a0e-2f1f7f1a9c11"
# One state of nfsd, as Linux 6.12 prints it for a file that is open for writing.
STATE = (
    '- 0x0000000168ddd5c3e7bd6a3f01000000: {{ type: open, access: rw, deny: --, superblock: "{major:02x}:{minor:02x}:'
    '{inode}", filename: "{name}", owner: "open id:\\x00\\x00\\x00\\x38" }}\n'
)


@dataclass(frozen=True)
class Clock(Places):
    """The places of the tests, with a clock that can be wrong."""

    seconds: float | None = None

    def now(self) -> float:
        return super().now() if self.seconds is None else self.seconds


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


class World:
    """`disk` is a file system of its own; `share` is exported, `disk` is not; beside them lies what must not change.

    Without mounts nobody knows what is exported, and `.clusterkit` is in the share.
    """

    def __init__(self, folder: Path, *, disk: Path | None = None, mounts: bool = True) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.disk = disk or folder / "disk"
        self.share = self.disk / "k8s"
        self.nfsd = folder / "nfsd"
        self.table = folder / "etab"
        self.clock: float | None = None
        self.outside.mkdir()
        if disk is None:
            self.disk.mkdir()
            if mounts:
                mount("-t", "tmpfs", "tmpfs", self.disk)
        self.share.mkdir()
        for place in (self.outside, self.disk / "precious", self.share / "neighbour"):
            fill(place)
        (self.nfsd / "clients").mkdir(parents=True)
        (self.nfsd / "versions").write_text("-3 +4 +4.1 +4.2\n")
        if mounts:
            self.table.write_text(f"{self.share}\t10.0.0.0/8(rw,sync)\n")

    @property
    def places(self) -> Places:
        return Clock(nfsd=str(self.nfsd), table=str(self.table), seconds=self.clock)

    @property
    def own(self) -> Path:
        for base in (self.disk, self.share):
            if os.path.lexists(base / OWN):
                return base / OWN
        return self.disk / OWN

    @property
    def trash(self) -> Path:
        return self.own / "trash"

    def volume(self, name: str = "volume") -> Path:
        path = self.share / name
        fill(path)
        return path

    def arguments(self, state: str, steps: list[dict[str, Any]] | None, **more: Any) -> dict[str, Any]:
        """The arguments as Ansible would hand them over."""
        given = {"state": state, "shares": [str(self.share)], **more}
        if steps is not None:
            given["steps"] = steps
        if state != "present":
            given.setdefault("cluster_uid", CLUSTER)
        checked = ArgumentSpecValidator(_volume_dirs.ARGUMENTS).validate(given)
        assert not checked.error_messages, checked.error_messages
        validated: dict[str, Any] = checked.validated_parameters
        return validated

    def run(self, state: str, *steps: dict[str, Any], check_mode: bool = False, **more: Any) -> Outcome:
        given = self.arguments(state, None if state == "present" else list(steps), **more)
        return _volume_dirs_run.run(_volume_dirs.read_request(given, check_mode=check_mode), self.places)

    def present(self, **more: Any) -> Outcome:
        return self.run("present", clusters=[CLUSTER], **more)

    def info(self, **more: Any) -> dict[str, Any]:
        checked = ArgumentSpecValidator(_volume_dirs_info.ARGUMENTS).validate({"shares": [str(self.share)], **more})
        assert not checked.error_messages, checked.error_messages
        given = checked.validated_parameters
        return _volume_dirs_info.result(_volume_dirs_info.read(given, self.places), given["dest"])

    def step(self, directory: str | Path, **more: Any) -> dict[str, Any]:
        """A step on a directory as it is now."""
        if "precondition" not in more:
            found = Path(directory).lstat()
            more["precondition"] = {"device": found.st_dev, "inode": found.st_ino}
        return {"id": "00001", "share": str(self.share), "directory": str(directory), **more}

    def of_volume(self, directory: str | Path, uid: str = "0e2c-4711", **more: Any) -> dict[str, Any]:
        return self.step(directory, volume={"name": "pvc-" + uid, "uid": uid}, **more)

    def entry(self, number: int = 0) -> dict[str, Any]:
        """A step on what lies in quarantine."""
        found = self.info()["quarantined"][number]
        return {
            "id": "00001",
            "share": str(self.share),
            "entry": found["entry"],
            "precondition": {"device": found["device"] or 1, "inode": found["inode"] or 1},
        }

    def quarantined(self, directory: Path, **more: Any) -> dict[str, Any]:
        """Quarantine an orphan; return the step that is about it there."""
        outcome = self.run("quarantined", self.step(directory), **more)
        assert outcome.problem == "", outcome.problem
        return self.entry()

    def open_by(self, path: Path, client: str = "7") -> None:
        """Let a client of NFSv4 have a file open."""
        found = path.stat()
        folder = self.nfsd / "clients" / client
        folder.mkdir(exist_ok=True)
        (folder / "info").write_text('clientid: 0x1\naddress: "10.0.0.7:832"\nstatus: confirmed\nname: "Linux 4.2 n"\n')
        major, minor = os.major(found.st_dev), os.minor(found.st_dev)
        with (folder / "states").open("a") as stream:
            stream.write(STATE.format(major=major, minor=minor, inode=found.st_ino, name=path.name))


def objects(uid: str = "0e2c-4711") -> dict[str, Any]:
    name = f"pvc-{uid}"
    return {
        "volume": {"kind": "PersistentVolume", "metadata": {"name": name, "uid": uid}, "spec": {"nfs": {"path": "/x"}}},
        "claim": {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"}},
        "class": None,
    }


def fill(place: Path) -> None:
    """A directory with a bit of everything."""
    place.mkdir(exist_ok=True)
    (place / "file").write_text(f"content of {place.name}\n")
    (place / "sub/deeper").mkdir(parents=True, exist_ok=True)
    (place / "sub/deeper/other").write_bytes(b"\0\xff" * 100)
    (place / "link").symlink_to("file")


def tree(place: Path, *without: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that can be seen of a tree; of what is left out nothing, and no times of the directory it lies in."""
    left_out = {str(path) for path in without}
    touched = {str(path.parent) for path in without}
    seen: dict[str, tuple[Any, ...]] = {}
    for path in _paths(str(place), left_out):
        found = os.lstat(path)
        about: tuple[Any, ...] = (found.st_ino, found.st_mode, found.st_uid, found.st_gid)
        if stat.S_ISREG(found.st_mode):
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            about += (found.st_size, found.st_mtime_ns, digest)
        elif stat.S_ISLNK(found.st_mode):
            about += (str(Path(path).readlink()),)
        elif stat.S_ISDIR(found.st_mode) and path not in touched:
            about += (found.st_mtime_ns,)
        seen[path] = about
    return seen


def _paths(place: str, left_out: set[str]) -> Iterator[str]:
    if place in left_out:
        return
    yield place
    if stat.S_ISDIR(os.lstat(place).st_mode):
        for name in sorted(each.name for each in Path(place).iterdir()):
            yield from _paths(f"{place}/{name}", left_out)


def content(place: Path) -> dict[str, tuple[Any, ...]]:
    """What is in a tree, wherever it lies now."""
    return {path[len(str(place)) :]: about[1:] for path, about in tree(place).items()}
