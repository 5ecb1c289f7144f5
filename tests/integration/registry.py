# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry for container images on the loopback."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lab import binaries
from lab.process import Process

from .cluster.conftest import free_ports


@contextmanager
def registry(folder: Path, *, htpasswd: str = "") -> Iterator[str]:
    """Its host and port; with `htpasswd`, it lets in who stands there. It writes to registry.log in the folder."""
    folder.mkdir()
    (port,) = free_ports(1)
    config: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    process = Process(folder, "registry")
    process.start([binaries.registry() / "docker-registry", "serve", folder / "config.yml"])
    try:
        deadline = time.monotonic() + 30
        while status(f"http://127.0.0.1:{port}/v2/") is None:
            assert time.monotonic() < deadline, process.said()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.stop()


def status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (the loopback)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
