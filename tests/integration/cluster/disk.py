# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system of its own that holds the directories of volumes, on the machine where the tests run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cluster import BIN, environment

SERVER = "192.0.2.77"


@dataclass
class Disk:
    """A file system of its own with two shares. What is on it can be made to look a year old."""

    image: Path
    place: Path

    def __post_init__(self) -> None:
        self.share = self.place / "k8s"
        self.own = self.place / "own"

    @property
    def servers(self) -> list[dict[str, Any]]:
        shares = [
            {"server_path": str(self.share), "client_path": "/nfs/k8s"},
            {"server_path": str(self.own), "client_path": "/nfs/own"},
        ]
        return [{"name": "tank", "host": "localhost", "addresses": [SERVER], "shares": shares}]

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)

    def age(self) -> None:
        """Times of change cannot be set on a mounted file system."""
        found = [path for path in self.place.rglob("*") if path.is_dir() and "lost+found" not in path.parts]
        inodes = [path.relative_to(self.place) for path in found]
        subprocess.run(["umount", self.place], check=True)
        lines = [f"set_inode_field /{path} {time} 20250101000000" for path in inodes for time in ("ctime", "crtime")]
        done = subprocess.run(
            ["debugfs", "-w", "-f", "-", self.image], input="\n".join(lines), text=True, capture_output=True, check=True
        )
        assert "not found" not in done.stderr.lower(), done.stderr
        self.mount()

    def fill(self, *names: str) -> None:
        for name in names:
            place = self.share / name
            if place.exists():
                continue
            (place / "deep").mkdir(parents=True, exist_ok=True)
            (place / "file").write_text(f"content of {name}\n")
            (place / "deep/other").write_bytes(os.urandom(100))
            (place / "link").symlink_to("file")

    def trees(self) -> dict[str, str]:
        """A hash of each directory that is listed, and all that is in it."""
        tops = [path for path in [*self.share.iterdir(), *(self.share / "team").iterdir()] if path.name[0] != "."]
        found = {str(path.relative_to(self.share)): tree(path) for path in tops if path.name != "team"}
        return {**found, "own": tree(self.own, without=".clusterkit")}

    def trees_flat(self) -> dict[str, str]:
        return {path.name: tree(path) for path in self.share.iterdir() if path.name[0] != "."}

    def quarantined(self) -> list[dict[str, Any]]:
        return [
            json.loads((path / "manifest.json").read_text())
            for share in (self.share, self.own)
            for path in sorted((share / ".clusterkit/trash").iterdir())
        ]


def tree(place: Path, without: str = "") -> str:
    digest = hashlib.sha256()
    for path in sorted([place, *place.rglob("*")]):
        if without and without in path.parts:
            continue
        found = path.lstat()
        # Not the inode of the top: what is looked at is what an owner would see.
        digest.update(f"{path.relative_to(place)} {found.st_mode} {found.st_uid} {found.st_gid}".encode())
        if path.is_symlink():
            digest.update(bytes(path.readlink()))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def on_server(name: str, **arguments: Any) -> dict[str, Any]:
    argv = [str(BIN / "ansible"), "localhost", "-m", f"clusterkit.storage.{name}", "-a", json.dumps(arguments)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    start = done.stdout.index(" => {") + len(" => ")
    result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
    return result


def nfs(path: str) -> dict[str, Any]:
    return {"source": {"nfs": {"server": SERVER, "path": path}}}
