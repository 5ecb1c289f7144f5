# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs: with their words in a log, and with a clear error when one is missing or fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from lab.settings import LabError

# Program: the Debian package that has it.
PACKAGES = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "openssl": "openssl",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


# What a program needs besides, when an ordinary user runs it: mmdebstrap(1), mode unshare.
NEEDED_BY_USERS = {"mmdebstrap": "newuidmap"}


def require(*programs: str) -> None:
    more = [NEEDED_BY_USERS[p] for p in programs if p in NEEDED_BY_USERS and os.geteuid()]
    missing = [p for p in (*programs, *more) if not shutil.which(p)]
    if missing:
        packages = " ".join(sorted({PACKAGES[p] for p in missing if p in PACKAGES}))
        by_hand = f", or as root: apt-get install {packages}" if packages else ""
        raise LabError(f"{', '.join(missing)} not found; `make packages` installs what is missing{by_hand}")


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
) -> str:
    """Run `argv` and return its output; with `log`, everything it says goes to that file instead."""
    words = [str(a) for a in argv]
    merged = {**os.environ, **(env or {})}
    with contextlib.ExitStack() as stack:
        output: IO[bytes] | int = stack.enter_context(log.open("ab")) if log else subprocess.PIPE
        try:
            result: subprocess.CompletedProcess[bytes] = subprocess.run(
                words,
                cwd=cwd,
                env=merged,
                stdout=output,
                stderr=output,
                timeout=timeout,
                check=False,
                input=stdin or b"",
            )
        except FileNotFoundError as error:
            raise LabError(f"{words[0]} not found") from error
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{' '.join(words[:6])} … did not end within {timeout:.0f} s") from error
    said = log.read_bytes() if log else result.stderr + result.stdout
    if result.returncode:
        tail = "\n".join(said.decode(errors="replace").strip().splitlines()[-12:])
        raise LabError(f"{' '.join(words[:8])} … ended with status {result.returncode}:\n{tail}")
    return "" if log else result.stdout.decode(errors="replace")
