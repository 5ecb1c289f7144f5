# SPDX-License-Identifier: GPL-3.0-or-later
"""Words to the person who waits: what is done now, and what took how long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT = 30.0  # seconds between two signs of life of a long step


def say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:100] if lines else ""


@contextlib.contextmanager
def step(title: str, log: Path | None = None) -> Iterator[None]:
    """Say when a step begins and how long it took; show the last line of its log while it runs."""
    say(f"{title} …")
    began = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            tail = _last_line(log) if log else ""
            say(f"  {title}: {time.monotonic() - began:.0f} s{': ' + tail if tail else ''}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{title}: {time.monotonic() - began:.1f} s")
