# SPDX-License-Identifier: GPL-3.0-or-later
"""rsync and restic as far as the modules for backups use them, in the process of the test.

The real ones are tried in tests/backup; here they can be told to fail.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import Ended

_TYPES = {"f": "file", "d": "dir", "L": "symlink", "S": "fifo"}


def _copy_tree(source: Path, target: Path) -> None:
    def copy(one: str, other: str) -> None:
        if stat.S_ISFIFO(os.lstat(one).st_mode):
            os.mkfifo(other)
            shutil.copystat(one, other)
        else:
            shutil.copy2(one, other, follow_symlinks=False)

    for path, found in _backup_files.walk(f"{source}/."):
        one, other = os.path.join(source, os.fsdecode(path)), os.path.join(target, os.fsdecode(path))  # noqa: PTH118 - as text
        if os.fsdecode(path).split("/")[0] == ".clusterkit":
            continue
        if stat.S_ISDIR(found.st_mode):
            Path(other).mkdir(parents=True, exist_ok=True)
        else:
            copy(one, other)
    for path, found in _backup_files.walk(f"{source}/."):
        if stat.S_ISDIR(found.st_mode) and os.fsdecode(path).split("/")[0] != ".clusterkit":
            shutil.copystat(os.path.join(source, os.fsdecode(path)), os.path.join(target, os.fsdecode(path)))  # noqa: PTH118 - as text


@dataclass(frozen=True)
class _Call:
    """One call of restic, and where what it says goes."""

    arguments: list[str]
    snapshots: list[dict[str, Any]]  # of its repository
    here: Path
    stage: Path  # the folder with the files beside the data
    line: Callable[[bytes], None]

    def after(self, word: str) -> str:
        return self.arguments[self.arguments.index(word) + 1]


class Programs:
    def __init__(self, store: Path) -> None:
        self.store = store
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.ends: list[tuple[str, Ended]] = []  # how the next call that has this word among its arguments ends
        self.does_work = True  # also a call that ends so
        self.snapshots: dict[str, list[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)  # of snapshots; several threads make some
        self.passwords: dict[str, str] = {}

    def follow(
        self,
        argv: Sequence[str],
        *,
        text: Callable[[bytes], None],
        tick: Callable[[int], None] = lambda _pid: None,
        cwd: int | None = None,
        env: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        stdin: int = -3,
    ) -> Ended:
        del descriptors
        self.calls.append(list(argv))
        self.environments.append(dict(env or {}))

        def line(one: bytes) -> None:
            text(one + b"\n")

        tick(os.getpid())
        end = next((entry for entry in self.ends if entry[0] in argv), None)
        if end is not None:
            self.ends.remove(end)
            if not self.does_work:
                return end[1]
        here = Path(f"/proc/self/fd/{cwd}") if cwd is not None else Path()
        if "rsync" in argv:
            self._rsync(list(argv), here, stdin, line)
            done = Ended(0, "")
        else:
            done = self._restic(list(argv), here, dict(env or {}), line)
        return end[1] if end is not None else done

    # --- rsync -----------------------------------------------------------------------------------------

    def _rsync(self, argv: list[str], here: Path, stdin: int, line: Callable[[bytes], None]) -> None:
        source, target = (Path(here, name) for name in argv[-2:])
        bases = [Path(word.partition("=")[2]) for word in argv if word.startswith("--link-dest=")]
        dry = "--dry-run" in argv
        chosen = None
        if "--files-from=-" in argv:
            chosen = os.read(stdin, 1 << 20).decode("utf-8", "surrogateescape").split("\0")
        line(b"created directory somewhere")
        for path, found in list(_backup_files.walk(f"{source}/.")):
            text = os.fsdecode(path)
            if text.split("/")[0] == ".clusterkit":
                continue
            if chosen is not None and not any(
                f"{text}/".startswith(f"{name}/") or f"{name}/".startswith(f"{text}/") or text == "." for name in chosen
            ):
                continue
            kind = _backup_files.type_of(found.st_mode)
            item, digest = self._copy(source / text, target / text, [base / text for base in bases], kind, dry=dry)
            name = _backup_files.escaped(path) + (b"/" if kind == "d" else b"")
            when = time.strftime("%Y/%m/%d-%H:%M:%S", time.gmtime(found.st_mtime // 1))
            permissions = stat.filemode(found.st_mode)[1:]
            told = f"{item}|{digest:32}|{found.st_size}|{when}|{permissions}|{found.st_uid}|{found.st_gid}|"
            line(told.encode() + name)
        for path, found in [] if dry else list(_backup_files.walk(f"{source}/.")):
            other = target / os.fsdecode(path)
            if os.path.lexists(other) and not stat.S_ISREG(found.st_mode):
                shutil.copystat(source / os.fsdecode(path), other, follow_symlinks=False)

    @staticmethod
    def _copy(source: Path, target: Path, bases: list[Path], kind: str, *, dry: bool) -> tuple[str, str]:
        if kind == "d":
            if not dry:
                target.mkdir(exist_ok=True)
            return "cd         ", ""  # its times come last
        if kind == "L":
            if not dry and not os.path.lexists(target):
                target.symlink_to(os.readlink(source))  # noqa: PTH115 - as text
            return "cL+++++++++", ""
        if kind == "S":
            if not dry and not target.exists():
                os.mkfifo(target)
            return "cS+++++++++", ""
        is_ = source.stat()
        for base in bases:
            if base.exists() and (base.stat().st_size, base.stat().st_mtime_ns) == (is_.st_size, is_.st_mtime_ns):
                if not dry:
                    os.link(base, target)
                return "hf         ", ""
        if not dry:
            shutil.copy2(source, target)
        return ">f+++++++++", hashlib.md5(source.read_bytes()).hexdigest()  # noqa: S324 - as rsync does

    # --- restic ----------------------------------------------------------------------------------------

    def _restic(self, argv: list[str], here: Path, env: dict[str, str], line: Callable[[bytes], None]) -> Ended:
        where = argv.index("restic")
        arguments = [word for word in argv[where + 1 :] if not word.startswith("sftp.") and word != "-o"]
        repository = Path(env["RESTIC_REPOSITORY_FILE"]).read_text()
        password = Path(env["RESTIC_PASSWORD_FILE"]).read_text() if "RESTIC_PASSWORD_FILE" in env else "by command"
        if arguments[0] == "init":
            self.snapshots[repository], self.passwords[repository] = [], password
        if repository not in self.snapshots:
            return Ended(
                1, f"Fatal: unable to open config file\nIs there a repository at the following location?\n{repository}"
            )
        if self.passwords[repository] != password:
            return Ended(1, "Fatal: wrong password or no key found\n")
        work = {
            "backup": self._backup, "snapshots": self._snapshots, "tag": self._tag, "forget": self._forget,
            "ls": self._ls, "dump": self._dump, "restore": self._restore,
        }.get(arguments[0])  # fmt: skip
        if work is not None:
            work(_Call(arguments, self.snapshots[repository], here, Path(argv[where - 1]), line))
        return Ended(0, "")

    def _backup(self, call: _Call) -> None:
        place_in_time = next(self._numbers)
        number = hashlib.sha256(f"{place_in_time}".encode()).hexdigest()
        dry = "--dry-run" in call.arguments
        files = [found for _path, found in _backup_files.walk(str(call.here) + "/.") if stat.S_ISREG(found.st_mode)]
        if not dry:
            place = self.store / number
            _copy_tree(call.here, place / "data")
            for name in ("objects.json", "objects-original.json", "manifest.json"):
                shutil.copy2(call.stage / name, place)
            tags = [call.arguments[index + 1] for index, word in enumerate(call.arguments) if word == "--tag"]
            when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.{place_in_time:09d}Z"
            call.snapshots.append({"id": number, "time": when, "tags": tags})
        call.line(b"no json")
        call.line(json.dumps({"message_type": "status", "files_done": 1, "bytes_done": 5}).encode())
        call.line(b'{"message_type":"other"}')
        summary: dict[str, Any] = {
            f"{what}_{state}": 0 for what in ("files", "dirs") for state in ("new", "changed", "unmodified")
        }
        summary.update(
            message_type="summary", files_new=len(files) + 3, total_files_processed=len(files) + 3, data_added=7,
            total_bytes_processed=sum(found.st_size for found in files), snapshot_id="" if dry else number[:8],
        )  # fmt: skip
        call.line(json.dumps(summary).encode())

    def _snapshots(self, call: _Call) -> None:
        tag = call.after("--tag")
        call.line(json.dumps([one for one in call.snapshots if tag in one["tags"]]).encode())

    def _tag(self, call: _Call) -> None:
        tag = call.after("--add")
        new = f"{'f' * 60}{next(self._numbers):04}"
        for one in call.snapshots:
            if one["id"].startswith(call.arguments[-1]):
                (self.store / one["id"]).rename(self.store / new)
                one.update(original=one["id"], id=new, tags=[*one["tags"], tag])

    def _forget(self, call: _Call) -> None:
        call.snapshots[:] = [one for one in call.snapshots if one["id"] not in call.arguments]

    def _ls(self, call: _Call) -> None:
        call.line(b'{"struct_type":"snapshot"}')
        call.line(b"no json")
        for path, found in _backup_files.walk(str(self.store / call.arguments[-1])):
            text = path.decode("utf-8", "replace")
            kind = _backup_files.type_of(found.st_mode)
            bits = found.st_mode & 0o777
            call.line(
                json.dumps(
                    {
                        "struct_type": "node", "path": "/" if text == "." else f"/{text}", "type": _TYPES[kind],
                        "size": found.st_size, "mode": bits, "uid": found.st_uid, "gid": found.st_gid,
                        "mtime": time.strftime("%Y-%m-%dT%H:%M:%S.5Z", time.gmtime(found.st_mtime // 1)),
                    }
                ).encode()
            )  # fmt: skip

    def _dump(self, call: _Call) -> None:
        call.line((self.store / call.arguments[-2] / call.arguments[-1].strip("/")).read_bytes())

    def _restore(self, call: _Call) -> None:
        place = self.store / call.arguments[-1]
        for index, word in enumerate(call.arguments):
            if word == "--include":
                path = call.arguments[index + 1].replace("\\", "").strip("/")
                if (place / path).is_dir():
                    _copy_tree(place / path, call.here / path)
                else:
                    (call.here / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(place / path, call.here / path, follow_symlinks=False)
