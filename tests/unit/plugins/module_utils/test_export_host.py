# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, versions and file systems of a server, also when they do not answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_host, _export_options, _process
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished
from ansible_collections.clusterkit.storage.tests.exports_server import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_names_are_resolved_as_exportfs_does(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    book = {"alpha": "10.0.0.1", "alpha.example.com": "10.0.0.1", "beta": "10.0.0.2"}

    def getaddrinfo(name: str, *_: object) -> list[Any]:
        if name not in book:
            raise socket.gaierror(-2, "Name or service not known")
        canonical = "alpha.example.com" if book[name] == "10.0.0.1" else name
        return [(2, 2, 17, canonical, (book[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    refusal = server.refusal(server.export("a", ("alpha", "rw"), ("10.0.0.1", "ro"), ("gamma", "rw")))
    assert len(refusal.problems) == 2
    assert '"10.0.0.1" already' in refusal.message
    assert '"gamma" cannot be resolved here: Name or service not known' in refusal.message
    # exportfs writes the canonical name into its table
    server.after = lambda: Path(server.places.table).write_text(
        Path(server.places.table).read_text().replace("alpha(", "alpha.example.com(")
    )
    assert server.run(server.export("a", ("alpha", "rw"))).changed
    assert server.table == ["a alpha.example.com rw"]
    assert not server.run(server.export("a", ("alpha", "rw"))).changed


def test_a_resolver_that_never_answers_does_not_hang_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object) -> list[Any]:
        time.sleep(3)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    addresses, failed = _export_host.resolve(["alpha"], 0.2)
    assert time.monotonic() - started < 2
    assert addresses == {}
    assert failed == {"alpha": "no answer within 0.2 seconds"}


def test_version_decides_which_options_are_known(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    mountd = server.root / "bin/rpc.mountd"
    mountd.touch()
    mountd.chmod(0o755)

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        if argv[0] == str(mountd):
            return Finished(list(argv), 0, "rpc.mountd version 2.6.2\n", "", timed_out=False)
        return server.exportfs(argv, timeout=timeout)

    monkeypatch.setattr(_process, "run", run)
    assert (
        '"xprtsec=tls" needs nfs-utils 2.6.3; this is 2.6.2'
        in server.refusal(server.export("a", ("10.0.0.1", "rw,xprtsec=tls"))).message
    )


@pytest.mark.parametrize(
    ("features", "old"),
    [("0x3ffff 0x1d", True), ("0x3ffff 0x1f", False), ("0x3ffff 0x2", False), ("0x3ffff", False), ("1 zz", False)],
)
def test_the_kernel_says_which_flags_it_keeps_for_each_flavor(server: Server, features: str, old: bool) -> None:
    Path(server.places.features).write_text(f"{features}\n")
    flags = _export_options.FLAVOR_FLAGS_OLD if old else _export_options.FLAVOR_FLAGS
    assert _export_host.flavor_flags(server.places) == flags


def test_names_get_their_addresses_and_canonical_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, *more: object) -> list[Any]:
        assert more == (None, 0, 0, socket.IPPROTO_UDP, socket.AI_CANONNAME)
        if name == "Alpha":
            return [(2, 2, 17, "Alpha.Example.com", ("10.0.0.2", 0)), (10, 2, 17, "", ("10.0.0.1", 0))]
        if name == "long":
            raise UnicodeError("label too long")
        raise OSError(2, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    addresses, failed = _export_host.resolve(["Alpha", "long", "gone"], 20)
    assert addresses == {name: ["10.0.0.1", "10.0.0.2"] for name in ("Alpha", "alpha.example.com")}
    assert failed == {"long": "label too long", "gone": "no such name"}
