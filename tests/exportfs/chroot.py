# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's own code and the real exportfs together, in a copy of a Debian suite's file system: milliseconds.

No machine, no nfsd: exportfs reads the exports files and writes its table without them. Each server is a folder to
chroot into; tests give functions to run in there, in a process and a mount namespace of their own. An ordinary user
needs user namespaces for it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _exports
from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import (
    Outcome,
    Places,
    Request,
    ensure_exports,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._host_module import HostError

# Modules that are loaded on first use: in the chroot there is no Python to load them from.
"example".encode("idna")

HOSTS = "127.0.0.1 localhost\n10.1.0.1 alpha.example.com alpha\n10.1.0.2 beta\n"
FILE = "/etc/exports.d/clusterkit.exports"
DROP_IN = "/etc/systemd/system/nfs-server.service.d/clusterkit.exports.conf"
SYSTEMCTL = "/usr/bin/systemctl"
# A stand-in for systemd: what it has read, and whether that is what the drop-in says. The shell has no cat here.
SYSTEMCTL_SCRIPT = f"""#!/bin/sh
content() {{ [ -e "$1" ] && while IFS= read -r line; do echo "$line"; done < "$1"; }}
case $1 in
  show) [ "$(content {DROP_IN})" = "$(content /run/loaded)" ] && echo no || echo yes ;;
  daemon-reload) content {DROP_IN} > /run/loaded; echo reload >> /run/reloads ;;
esac
exit 0
"""


def enter(root: Path, mounts: Sequence[tuple[str, ...]] = ()) -> None:
    """Make this process one that lives in `root`; `mounts` are (type, place[, options]) in there."""
    user, group = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWNS | (os.CLONE_NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("--make-rprivate", "/")
    _mount("--bind", str(root), str(root))
    for name in ("dev", "proc"):
        _mount("--rbind", f"/{name}", str(root / name))
    for fstype, place, *options in mounts:
        target = root / place.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        if fstype == "bind":
            _mount("--bind", str(root / options[0].lstrip("/")), str(target))
        else:
            _mount("-t", fstype, *(word for option in options for word in ("-o", option)), fstype, str(target))
    os.chroot(root)
    os.chdir("/")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The module's failure, brought out of the other process."""

    def __init__(self, message: str, problems: list[str], changed: bool, warnings: list[str]) -> None:
        super().__init__(message, problems, changed, warnings)
        self.message, self.problems, self.changed, self.warnings = message, problems, changed, warnings


class Server:
    """The file system of a server without a running nfsd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[tuple[str, ...]] = []
        self.write("/etc/hosts", HOSTS)
        left = ("/etc/exports", "/etc/exports.d", "/etc/fstab", DROP_IN, SYSTEMCTL, "/run", "/srv", "/var/lib/nfs")
        for name in left:
            there = self.path(name)
            shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
        self.write("/etc/exports", "")
        for name in ("/run", "/srv", "/var/lib/nfs"):
            self.path(name).mkdir(parents=True)

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def install_systemctl(self) -> None:
        self.write(SYSTEMCTL, SYSTEMCTL_SCRIPT)
        self.path(SYSTEMCTL).chmod(0o755)

    def write(self, name: str, content: str | bytes) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, name: str) -> str:
        return self.path(name).read_bytes().decode("utf-8", "surrogateescape")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in there and return what it returns, or raise what it raises."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.close(reader)
                try:
                    enter(self.root, self.mounts)
                    answer = (True, function(*arguments))
                except HostError as error:
                    answer = (False, Refused(error.message, error.problems, error.changed, error.warnings))
                except BaseException as error:
                    answer = (False, error)
                with os.fdopen(writer, "wb") as stream:
                    pickle.dump(answer, stream)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            content = stream.read()
        os.waitpid(child, 0)
        good, result = pickle.loads(content)  # noqa: S301 - from the fork above
        if not good:
            raise result
        return result

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program as an administrator would."""
        done: subprocess.CompletedProcess[str] = self.call(_run, argv)
        return done

    def ensure(self, *exports: dict[str, Any], **more: Any) -> Outcome:
        """Run the module's code."""
        outcome: Outcome = self.call(ensure_exports, Request(exports=exports, **{"file": FILE, **more}), Places())
        return outcome

    @property
    def state(self) -> tuple[str, str]:
        """The file and the table; "" for what is not there."""
        file, table = (self.read(name) if self.path(name).exists() else "" for name in (FILE, "/var/lib/nfs/etab"))
        return file, table

    @property
    def table(self) -> list[str]:
        """What is exported: path, client, ro or rw."""
        entries = _exports.parse(self.state[1]).effective
        return sorted(f"{entry.path} {entry.host} {entry.meaning.options()[0]}" for entry in entries)


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
