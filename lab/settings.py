# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab consists of: pinned versions, options, machines, folders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".work" / "lab"


class LabError(Exception):
    """Something a person can mend; its text says what."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clusterkit-lab"


def pins() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        result: dict[str, Any] = tomllib.load(stream)["tool"]["lab"]
    return result


def hash_of(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def hash_of_files(*paths: Path) -> str:
    """Hash of the content of files and, below folders, of everything that is not a test or a text."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix in {".pyc", ".md"} or file.name.endswith("_test.go"):
                continue
            digest.update(f"{file.relative_to(path.parent)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


POD_NETWORK = "10.244.0.0/16"


@dataclasses.dataclass(frozen=True)
class Options:
    """What `lab up` can be asked for."""

    kubernetes: str
    debian: str
    servers: int = 1
    nodes: int = 2
    export_disk: str = "xfs"
    images: str = "build"


@dataclasses.dataclass(frozen=True)
class Machine:
    """One machine: its name, its role and its address on the machines' own segment."""

    name: str
    role: str  # server | node
    number: int

    @property
    def address(self) -> str:
        """The segment exists inside the guests only, so the address is the same in every lab."""
        return f"192.168.77.{self.number}"

    @property
    def pod_network(self) -> str:
        """The part of POD_NETWORK that the pods of this node have their addresses from."""
        return f"10.244.{self.number}.0/24"

    @property
    def memory(self) -> int:
        """MiB."""
        return 1024 if self.role == "server" else 1536


def machines(options: Options) -> list[Machine]:
    servers = [Machine(f"server{n}", "server", 10 + n) for n in range(1, options.servers + 1)]
    nodes = [Machine(f"node{n}", "node", 20 + n) for n in range(1, options.nodes + 1)]
    return servers + nodes
