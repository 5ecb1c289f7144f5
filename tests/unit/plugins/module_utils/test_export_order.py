# SPDX-License-Identifier: GPL-3.0-or-later
"""The server starts after the disks below its exports, and systemd knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _files, _process
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished
from ansible_collections.clusterkit.storage.tests.exports_server import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


class Systemd:
    """systemctl beside exportfs; what the unit of the server was ordered after in an earlier run."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[list[str]] = []
        self.status, self.reload_needed = 0, "no"
        program = server.root / "bin/systemctl"
        program.touch()
        program.chmod(0o755)
        self.file = server.root / "units/nfs-server.service.d/clusterkit.exports.conf"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("[Unit]\nRequiresMountsFor=/old\n")

        def run(argv: Sequence[str], *, timeout: float) -> Finished:
            if Path(argv[0]).name != "systemctl":
                return server.exportfs(argv, timeout=timeout)
            self.runs.append(list(argv[1:]))
            return Finished(list(argv), self.status, f"{self.reload_needed}\n", "no bus", timed_out=False)

        monkeypatch.setattr(_process, "run", run)

    @property
    def reloaded(self) -> bool:
        return ["daemon-reload"] in self.runs


def test_an_order_that_is_not_needed_any_more_is_taken_from_systemd(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(server, monkeypatch)
    predicted = server.run(server.export("a"), check_mode=True)
    assert predicted.order_changed
    assert systemd.file.exists()
    assert not systemd.reloaded
    assert server.run(server.export("a")).order_changed
    assert not systemd.file.exists()
    assert systemd.reloaded
    systemd.runs.clear()
    assert not server.run(server.export("a")).changed
    assert not systemd.reloaded


def test_a_systemd_that_refuses_is_a_failure_after_the_exports(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(server, monkeypatch)
    systemd.status = 1
    refusal = server.refusal(server.export("a"))
    assert "the exports are effective, but nfs-server is not ordered after" in refusal.message
    assert "no bus" in refusal.message
    assert refusal.changed
    assert server.table == ["a 192.168.77.0/24 rw"]


def test_an_order_that_cannot_be_taken_away_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(server, monkeypatch)

    def remove(_path: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(_files, "remove_file", remove)
    assert "cannot be written: " in server.refusal(server.export("a")).message
    assert systemd.file.exists()


def test_a_file_in_place_of_the_folder_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(server, monkeypatch)
    systemd.file.unlink()
    systemd.file.parent.rmdir()
    systemd.file.parent.write_text("")
    refusal = server.refusal(server.export("a"))
    assert f"{systemd.file.parent} is not a directory; {systemd.file} has to lie in it" in refusal.message
    assert server.table == ["a 192.168.77.0/24 rw"], "the exports are effective all the same"
