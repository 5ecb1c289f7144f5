# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server says, in the words of Debian 12 and 13, and what is said when it cannot be learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _server_info
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

RPCINFO = """   program vers proto   port  service
    100000    4   tcp    111  portmapper
    100005    3   tcp  20048  mountd
    100003    4   tcp   2049  nfs
    100227    3   tcp   2049
"""
SHOWMOUNT = """/nfs/k8s/data   192.168.77.0/24,10.0.0.1
/nfs/k8s/with a blank (everyone)
"""


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("-2 +3 +4 -4.0 +4.1 +4.2\n", ["3", "4.1", "4.2"]),
        ("+3 +4 +4.0 +4.1 +4.2\n", ["3", "4.0", "4.1", "4.2"]),
        ("+3 +4 +4.1 +4.2\n", ["3", "4.0", "4.1", "4.2"]),  # as the kernel writes it
        ("-3 +4\n", ["4.0"]),
        ("+3 -4\n", ["3"]),
        ("\n", []),
    ],
)
def test_versions_of_nfsd(text: str, served: list[str]) -> None:
    assert _server_info.parse_versions(text) == served


def test_programs_of_rpcbind() -> None:
    programs = _server_info.parse_rpcinfo(RPCINFO)
    assert programs[1] == {"program": 100005, "version": 3, "protocol": "tcp", "port": 20048, "name": "mountd"}
    assert programs[3]["name"] == ""
    assert len(programs) == 4


def test_list_of_mountd() -> None:
    assert _server_info.parse_showmount(SHOWMOUNT) == [
        {"path": "/nfs/k8s/data", "hosts": ["192.168.77.0/24", "10.0.0.1"]},
        {"path": "/nfs/k8s/with a blank", "hosts": ["*"]},
    ]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "bin").mkdir()
    (tmp_path / "exports.d").mkdir()
    return Places(
        exports=str(tmp_path / "exports"),
        folder=str(tmp_path / "exports.d"),
        table=str(tmp_path / "etab"),
        features=str(tmp_path / "features"),
        path=str(tmp_path / "bin"),
    )


def test_a_machine_without_nfs_gives_reasons_and_no_error(places: Places, tmp_path: Path) -> None:
    info = _server_info.collect(places, timeout=1, nfsd=str(tmp_path / "nfsd"))
    assert (info.exports, info.files, info.versions, info.threads) == ([], [], None, None)
    assert set(info.unavailable) == {*("nfs_utils_version", "exports", "versions", "threads", "programs", "mount_list")}


def test_a_server_is_read_completely(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rpcinfo", "showmount", "rpc.mountd"):
        (tmp_path / "bin" / name).touch()
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "nfsd").mkdir()
    (tmp_path / "nfsd/versions").write_text("+3 +4 -4.0 +4.1 +4.2\n")
    (tmp_path / "nfsd/threads").write_text("8\n")
    (tmp_path / "etab").write_text("/a\t10.0.0.1(rw,sync,sec=sys,rw)\n")
    (tmp_path / "exports").write_text("/a 10.0.0.1(rw)\n/b h(rww)\n/c h(rw)\n")
    (tmp_path / "exports.d/x.exports").write_text("/d h(rw)\n")
    (tmp_path / "exports.d/ignored").write_text("/e h(rw)\n")
    answers = {"rpcinfo": RPCINFO, "showmount": SHOWMOUNT, "rpc.mountd": "rpc.mountd version 2.8.3\n"}

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        assert timeout == 3
        return Finished(list(argv), 0, answers[Path(argv[0]).name], "", timed_out=False)

    monkeypatch.setattr(_server_info._process, "run", run)
    info = _server_info.collect(places, timeout=3, nfsd=str(tmp_path / "nfsd"))
    assert info.unavailable == {}
    assert [(export["path"], export["host"], export["options"][0]) for export in info.exports] == [
        ("/a", "10.0.0.1", "rw")
    ]
    assert [Path(file["path"]).name for file in info.files] == ["exports", "x.exports"]
    assert [(export["path"], export["lost"]) for export in info.files[0]["exports"]] == [
        ("/a", False),
        ("/b", True),
        ("/c", True),
    ]
    assert len(info.files[0]["problems"]) == 2
    assert (info.nfs_utils_version, info.versions, info.threads) == ("2.8.3", ["3", "4.1", "4.2"], 8)
    assert info.mount_list is not None


def test_a_question_without_answer_is_named(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin/rpcinfo").touch()
    (tmp_path / "bin/rpcinfo").chmod(0o755)
    hangs = Finished(["rpcinfo"], None, "", "", timed_out=True)
    monkeypatch.setattr(_server_info._process, "run", lambda _argv, timeout: hangs)  # noqa: ARG005 (the signature of what it replaces)
    info = _server_info.collect(places, timeout=1, nfsd=str(tmp_path / "nfsd"))
    assert info.programs is None
    assert info.unavailable["programs"] == "rpcinfo: no end within the time limit"


def test_without_mountd_nothing_is_asked_of_it(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rpcinfo", "showmount"):
        (tmp_path / "bin" / name).touch()
        (tmp_path / "bin" / name).chmod(0o755)
    asked: list[str] = []

    def run(argv: Sequence[str], *, timeout: float) -> Finished:  # noqa: ARG001 (the signature of what it replaces)
        asked.append(Path(argv[0]).name)
        return Finished(list(argv), 0, RPCINFO.replace("100005", "100006"), "", timed_out=False)

    monkeypatch.setattr(_server_info._process, "run", run)
    info = _server_info.collect(places, timeout=1, nfsd=str(tmp_path / "nfsd"))
    assert asked == ["rpcinfo"]
    assert info.unavailable["mount_list"].startswith("mountd is not registered")
