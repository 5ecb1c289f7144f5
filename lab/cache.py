# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's cache: what is dear to make, kept by the hash of its inputs, shared by all checkouts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.progress import say
from lab.settings import cache_folder, hash_of

INPUTS = "inputs.json"


@contextlib.contextmanager
def locked(path: Path, *, waiting_for: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`; say what is waited for if somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting_for:
                say(f"waiting for another process that makes {waiting_for}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def entry(kind: str, inputs: dict[str, object], build: Callable[[Path], None]) -> Path:
    """The folder made from `inputs`; built once, beside its final place, and renamed when complete."""
    name = f"{kind}-{hash_of(inputs)}"
    final = cache_folder() / name
    with locked(cache_folder() / "locks" / name, waiting_for=name):
        if not final.exists():
            partial = cache_folder() / "partial" / name
            if partial.exists():  # what an interrupted build left
                shutil.rmtree(partial)
            partial.mkdir(parents=True)
            build(partial)
            made = {"build": uuid.uuid4().hex, "inputs": inputs}
            (partial / INPUTS).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
            partial.rename(final)
    os.utime(final)
    return final


def find(kind: str, inputs: dict[str, object]) -> Path | None:
    final = cache_folder() / f"{kind}-{hash_of(inputs)}"
    return final if final.exists() else None


def build_of(folder: Path) -> str | None:
    """Says which making of an entry this is: a disk on top of another making of the same inputs would be broken."""
    try:
        build: str = json.loads((folder / INPUTS).read_text())["build"]
    except FileNotFoundError:
        return None
    return build


def _entries() -> list[Path]:
    return sorted(p.parent for p in cache_folder().glob(f"*/{INPUTS}"))


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_blocks * 512 for p in folder.rglob("*"))


def show() -> None:
    total = 0
    for folder in _entries():
        size = _bytes(folder)
        total += size
        days = (time.time() - folder.stat().st_mtime) / 86400
        print(f"{size / 2**20:8.0f} MiB  used {days:5.1f} days ago  {folder.name}")
    print(f"{total / 2**20:8.0f} MiB  in {cache_folder()}")


def clear(unused_days: float) -> None:
    """Remove entries not used for so many days. A lab that stands on a removed one must be made anew."""
    for folder in _entries():
        if time.time() - folder.stat().st_mtime >= unused_days * 86400:
            say(f"removing {folder.name}")
            shutil.rmtree(folder)
    if (cache_folder() / "partial").exists():
        shutil.rmtree(cache_folder() / "partial")
