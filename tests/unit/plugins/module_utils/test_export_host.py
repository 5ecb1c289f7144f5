# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, versions and file systems of a server, also when they do not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_host,
    _export_options,
    _mounts,
    _process,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_mounts import Mounts
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

    said = "rpc.mountd version 2.6.2\n"

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        if list(argv) == [str(mountd), "-v"]:
            return Finished(list(argv), 0, said, "", timed_out=False)
        return server.exportfs(argv, timeout=timeout)

    monkeypatch.setattr(_process, "run", run)
    assert (
        '"xprtsec=tls" needs nfs-utils 2.6.3; this is 2.6.2'
        in server.refusal(server.export("a", ("10.0.0.1", "rw,xprtsec=tls"))).message
    )
    said = "rpc.mountd: unknown option\n"
    assert _export_host.nfs_utils_version(str(mountd.parent), 5) is None


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
        assert threading.current_thread().daemon, "nobody waits at the end for one that hangs"
        if name == "Alpha":
            time.sleep(0.2)
            return [(2, 2, 17, "Alpha.Example.com", ("10.0.0.2", 0)), (10, 2, 17, "", ("10.0.0.1", 0))]
        if name == "long":
            raise UnicodeError("label too long")
        raise OSError(2, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    addresses, failed = _export_host.resolve(["Alpha", "long", "gone"], 20)
    assert addresses == {name: ["10.0.0.1", "10.0.0.2"] for name in ("Alpha", "alpha.example.com")}
    assert failed == {"long": "label too long", "gone": "no such name"}


def test_the_files_of_exportfs_are_read_and_no_others(server: Server) -> None:
    folder = Path(server.places.folder)
    folder.mkdir()
    for name in ("b.exports", "a.exports", ".hidden.exports", "c.exports~"):
        (folder / name).write_text(name)
    (folder / "d.exports").mkdir()
    Path(server.places.exports).write_text("main")
    texts = {server.places.exports: "main", f"{folder}/a.exports": "a.exports", f"{folder}/b.exports": "b.exports"}
    assert list(_export_host.exports_files(server.places).items()) == list(texts.items())
    a_file = replace(server.places, folder=server.places.exports)
    assert _export_host.exports_files(a_file) == {server.places.exports: "main"}


def test_a_mount_counts_that_has_a_device_of_its_own_and_none_is_touched_that_may_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = tmp_path / "bind"
    bind.mkdir()
    info, fstab = tmp_path / "mountinfo", tmp_path / "fstab"
    info.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:22 / /proc rw - proc proc rw\n"
        f"3 1 8:1 /x {bind} rw - ext4 /dev/sda1 rw\n"
        "4 1 0:50 / /dead rw - nfs4 nfs1:/x rw\n"
        "5 1 8:2 / /gone/disk rw - xfs /dev/sdb rw\n"
    )
    asked: list[str] = []
    device = _export_host._device

    def asked_for(path: str) -> int:
        asked.append(path)
        return device(path)

    monkeypatch.setattr(_export_host, "_device", asked_for)
    places = _export_host.Places(mountinfo=str(info), fstab=str(fstab))
    paths = [f"{bind}/a", "/proc/x", "/dead/x", "/gone/disk/x", "/etc"]
    mounts = _export_host.mounts_of(places, paths)
    assert mounts.own_device == {"/proc", "/dead"}
    assert not any(path.startswith("/dead") for path in asked)
    assert [mount.path for mount in mounts.table.mounts] == ["/", "/proc", str(bind), "/dead", "/gone/disk"]
    assert list(mounts.at_boot) == []
    fstab.write_text("/dev/sdb /gone/disk xfs defaults 0 0\n")
    assert list(_export_host.mounts_of(places, paths).at_boot) == ["/gone/disk"]


def test_a_file_system_is_told_once_and_asked_for_its_room_unless_it_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _mounts.parse(
        "2 1 8:2 / /disk rw - xfs /dev/sdb rw,prjquota\n"
        "3 1 0:50 / /dead rw - nfs4 nfs1:/x rw\n"
        "4 1 8:3 / /gone rw - ext4 /dev/sdc rw\n"
    )

    def statvfs(path: str) -> SimpleNamespace:
        if path == "/gone":
            raise FileNotFoundError(path)
        assert path == "/disk", "one that may hang is not asked"
        return SimpleNamespace(f_blocks=1000, f_bfree=30, f_bavail=20, f_frsize=4096, f_bsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    paths = ["/elsewhere", "/gone", "/disk/b", "/disk/a", "/dead/x"]
    nothing: dict[str, Any] = {"quotas": [], "size": None, "available": None}
    assert _export_host.file_systems(Mounts(_mounts.MountTable(table)), paths) == [
        {"mount_point": "/dead", "type": "nfs4", "source": "nfs1:/x", **nothing},
        {
            "mount_point": "/disk",
            "type": "xfs",
            "source": "/dev/sdb",
            "quotas": ["project"],
            "size": 4096000,
            "available": 81920,
        },
        {"mount_point": "/gone", "type": "ext4", "source": "/dev/sdc", **nothing},
    ]
