# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with a stand-in for exportfs, which reads the same files and writes the same table.

That the stand-in is right about exportfs is shown by tests/exportfs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_host, _exports, _process
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import (
    Outcome,
    Request,
    ensure_exports,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._host_module import HostError
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished


class Server:
    """A server below a temporary folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.file = root / "etc/exports.d/clusterkit.exports"
        self.places = Places(
            exports=str(root / "etc/exports"),
            folder=str(root / "etc/exports.d"),
            table=str(root / "etab"),
            features=str(root / "export_features"),
            lock=str(root / "lock"),
            mountinfo=str(root / "mountinfo"),
            fstab=str(root / "fstab"),
            units=str(root / "units"),
            path=str(root / "bin"),
        )
        self.runs: list[list[str]] = []
        self.after: Callable[[], object] = lambda: None  # what goes wrong once exportfs is done
        (root / "etc").mkdir()
        (root / "bin").mkdir()
        self.install()
        for name in "abc":
            self.directory(name)
        monkeypatch.setattr(_process, "run", self.exportfs)

    def install(self) -> None:
        program = self.root / "bin/exportfs"
        program.touch()
        program.chmod(0o755)

    def directory(self, name: str) -> str:
        path = self.root / "nfs" / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def export(self, name: str, *clients: tuple[str, str]) -> dict[str, Any]:
        listed = clients or (("192.168.77.0/24", "rw"),)
        return {
            "path": str(self.root / "nfs" / name),
            "clients": [{"host": host, "options": options.split(",")} for host, options in listed],
            "comment": "",
        }

    def run(self, *exports: dict[str, Any], **more: Any) -> Outcome:
        return ensure_exports(Request(exports=exports, file=more.pop("file", str(self.file)), **more), self.places)

    def refusal(self, *exports: dict[str, Any], **more: Any) -> HostError:
        with pytest.raises(HostError) as caught:
            self.run(*exports, **more)
        return caught.value

    @property
    def table(self) -> list[str]:
        path = Path(self.places.table)
        entries = _exports.parse(path.read_text() if path.exists() else "").effective
        root = str(self.root / "nfs") + "/"
        return sorted(f"{entry.path.replace(root, '')} {entry.host} {entry.meaning.options()[0]}" for entry in entries)

    def write_table(self, entries: Sequence[_exports.Entry]) -> None:
        lines = [_exports.format_export(entry.path, [(entry.host, entry.meaning.options())]) for entry in entries]
        Path(self.places.table).write_text("".join(f"{line}\n" for line in lines))

    def exportfs(self, argv: Sequence[str], *, timeout: float) -> Finished:  # noqa: ARG002 (the signature of what it replaces)
        self.runs.append(list(argv[1:]))
        table = Path(self.places.table)
        known = _exports.parse(table.read_text() if table.exists() else "").effective
        if argv[1] == "-u":
            left = [entry for entry in known if f"{entry.host}:{entry.path}" not in argv[2:]]
        else:
            left = [
                entry
                for text in _export_host.exports_files(self.places).values()
                for entry in _exports.parse(text).effective
            ]
            if argv[1] == "-a":
                there = {(entry.path, entry.host) for entry in left}
                left += [entry for entry in known if (entry.path, entry.host) not in there]
        self.write_table(left)
        self.after()
        return Finished(list(argv), 0, "", "", timed_out=False)
