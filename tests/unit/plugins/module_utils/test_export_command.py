# SPDX-License-Identifier: GPL-3.0-or-later
"""What exportfs is told, and what is made of what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_command,
    _export_options,
    _exports,
    _process,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished
from ansible_collections.clusterkit.storage.tests.exports_server import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_an_exportfs_that_hangs_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Finished(["exportfs", "-ra"], None, "", "", timed_out=True)
    monkeypatch.setattr(_process, "run", lambda _argv, timeout: hangs)  # noqa: ARG005 (the signature of what it replaces)
    assert "no end within the time limit" in server.refusal(server.export("a")).message
    assert not server.file.exists()


def test_a_file_system_that_cannot_be_exported_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """exportfs takes it into the table all the same, and no client can mount it."""

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        server.exportfs(argv, timeout=timeout)
        words = f"exportfs: {server.root}/nfs/a requires fsid= for NFS export\nexportfs: something else\n"
        return Finished(list(argv), 1, "", words, timed_out=False)

    monkeypatch.setattr(_process, "run", run)
    refusal = server.refusal(server.export("a"))
    assert refusal.problems == [f"{server.root}/nfs/a requires fsid= for NFS export"]
    assert "exportfs: something else" in refusal.warnings


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.0/8", "10.0.0.0/8:/a"),
        ("2001:db8::1", "[2001:db8::1]:/a"),
        ("2001:db8::/32", "[2001:db8::]/32:/a"),
        ("host[0-9]", "host[0-9]:/a"),
        ("", "*:/a"),
    ],
)
def test_exports_are_named_for_exportfs_as_it_wants_them(host: str, name: str) -> None:
    entry = _exports.Entry("/a", host, _export_options.Meaning(), 1)
    assert _export_command.name_of(entry) == name
