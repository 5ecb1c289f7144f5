# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of the lab as the tests of the client use it: mounts by the module or by hand, and what is there then."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.machine import Guest

from .conftest import play

SERVER = "192.168.77.11"
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]


@dataclass
class Client:
    """A node whose mounts are brought to what a test wants, and its server."""

    node: Guest
    server: Guest
    folder: Path
    path: str
    exports: list[str] = field(default_factory=list)

    def apply(self, *mounts: dict[str, Any], check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run nfs_mounts once; return its result."""
        result = self.run("nfs_mounts", {"mounts": list(mounts), **arguments}, check=check)
        assert len(result.get("mounts", [])) in (0, len(mounts)), result
        return result

    def info(self, **arguments: Any) -> dict[str, Any]:
        return self.run("nfs_mounts_info", arguments)

    def run(self, module: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        playbook, results = self.write(module, arguments)
        done = play(playbook, *(["--check"] if check else []), "--diff")
        assert results.exists(), done.output[-3000:]
        found: dict[str, Any] = json.loads(results.read_text())
        return found

    def write(self, module: str, arguments: dict[str, Any]) -> tuple[Path, Path]:
        results = self.folder / "result.json"
        results.unlink(missing_ok=True)
        tasks = [
            {
                "name": "Do",
                f"clusterkit.storage.{module}": arguments,
                "register": "result",
                "ignore_errors": True,  # the test judges
            },
            {
                "name": "Keep the result",
                "ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(results), "mode": "0600"},
                "delegate_to": "localhost",
                "check_mode": False,
            },
        ]
        playbook = self.folder / "play.yml"
        name = self.node.machine.name
        playbook.write_text(yaml.safe_dump([{"name": "P", "hosts": name, "gather_facts": False, "tasks": tasks}]))
        return playbook, results

    def item(self, name: str = "a", options: str = "", **more: Any) -> dict[str, Any]:
        return {"path": self.path, "src": f"{SERVER}:{self.exports[NAMES.index(name)]}", "options": options, **more}

    def mount(self, name: str, options: str = "rw", path: str = "") -> None:
        """Mount as a person would by hand."""
        path = path or self.path
        export = self.exports[NAMES.index(name)]
        self.node.ssh(f"mkdir -p {path} && mount -t nfs -o {options} {SERVER}:{export} {path}")

    def at(self, name: str) -> str:
        """Another mount point of this test."""
        return f"{self.path}-{name}" if name else self.path

    def live_at(self, name: str) -> list[str]:
        """What is mounted at a mount point, the lowest first."""
        return self.node.ssh(
            f"awk '$5 == \"{self.at(name)}\"' /proc/self/mountinfo | sed 's/.* - //' | cut -d' ' -f2"
        ).split()

    def live_options_at(self, name: str) -> set[str]:
        lines = self.node.ssh(f"awk '$5 == \"{self.at(name)}\"' /proc/self/mountinfo | tail -1").split()
        return {*lines[5].split(","), *lines[-1].split(",")}

    def fstab_at(self, name: str) -> list[str]:
        return self.node.ssh(f"grep ' {self.at(name)} ' /etc/fstab; true").splitlines()

    @property
    def live(self) -> list[str]:
        return self.live_at("")

    @property
    def live_options(self) -> set[str]:
        return self.live_options_at("")

    @property
    def fstab(self) -> list[str]:
        return self.fstab_at("")

    def export(self, name: str) -> str:
        return f"{SERVER}:{self.exports[NAMES.index(name)]}"
