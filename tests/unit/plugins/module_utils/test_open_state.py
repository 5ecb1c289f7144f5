# SPDX-License-Identifier: GPL-3.0-or-later
"""What nfsd tells about open files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _open_state
from hypothesis import given
from hypothesis import strategies as st

# The forms of fs/nfsd/nfs4state.c of Linux 6.12: open, lock, delegation, layout; a state without a file.
STATES = r"""
- 0x0000000168ddd5: { type: open, access: rw, deny: --, superblock: "fe:10:131", filename: "a/b", owner: "open:\x00" }
- 0x0000000268ddd5: { type: lock, superblock: "fe:10:132", filename: "c", owner: "lock id:\x00" }
- 0x0000000368ddd5: { type: deleg, access: r, superblock: "08:01:133", filename: "superblock: \"08:01:999\"" }
- 0x0000000468ddd5: { type: layout, superblock: "00:2a:-1", filename: "d" }
- 0x0000000568ddd5: { type: open, access: --, deny: -- }
"""


def test_states_of_all_types() -> None:
    assert list(_open_state.parse(STATES.splitlines())) == [
        ("254:16", 131),
        ("254:16", 132),
        ("8:1", 133),
        ("0:42", 2**64 - 1),
    ]


@given(st.integers(0, 4095), st.integers(0, 2**20 - 1), st.integers(0, 2**63 - 1), st.text(max_size=20))
def test_any_device_and_inode(major: int, minor: int, inode: int, name: str) -> None:
    name = name.encode("unicode_escape").decode().replace('"', "")
    device = f"{major:02x}:{minor:02x}"
    line = f'- 0x1: {{ type: open, access: r-, deny: --, superblock: "{device}:{inode}", filename: "{name}" }}'
    assert list(_open_state.parse([line])) == [(f"{major}:{minor}", inode)]


def nfsd(folder: Path, **clients: str) -> str:
    (folder / "clients").mkdir()
    for name, states in clients.items():
        (folder / "clients" / name).mkdir()
        (folder / "clients" / name / "states").write_text(states)
    return str(folder)


def test_clients_are_named(tmp_path: Path) -> None:
    place = nfsd(tmp_path, a=STATES, b=STATES)
    (tmp_path / "clients/a/info").write_text('clientid: 0x1\naddress: "10.0.0.7:832"\nname: "Linux NFSv4.2 node1"\n')
    (tmp_path / "clients/b/info").write_text('name: "Linux NFSv4.2 node2"\n')
    (tmp_path / "clients/left").mkdir()
    state = _open_state.read(place)
    assert state.known and not state.nfsv3
    assert state.inodes("254:16") == {
        131: {"10.0.0.7:832", "Linux NFSv4.2 node2"},
        132: {"10.0.0.7:832", "Linux NFSv4.2 node2"},
    }
    assert state.inodes("1:1") == {}


def test_client_without_a_name(tmp_path: Path) -> None:
    place = nfsd(tmp_path, c=STATES)
    assert _open_state.read(place).inodes("8:1") == {133: {"client c"}}


def test_no_server_and_old_kernels(tmp_path: Path) -> None:
    assert not _open_state.read(str(tmp_path / "missing")).known
    (tmp_path / "versions").write_text("+3 +4 +4.1 +4.2\n")
    state = _open_state.read(str(tmp_path))
    assert not state.known and state.nfsv3


@pytest.mark.parametrize(
    ("threads", "ended", "known"), [("8\n", "N\n", False), ("8\n", "Y\n", True), ("0\n", "N\n", True)]
)
def test_nothing_is_known_while_clients_tell_what_they_had_open(
    tmp_path: Path, threads: str, ended: str, known: bool
) -> None:
    place = nfsd(tmp_path)
    (tmp_path / "threads").write_text(threads)
    (tmp_path / "v4_end_grace").write_text(ended)
    state = _open_state.read(place)
    assert (state.known, state.grace) == (known, not known)


def test_states_that_cannot_be_read(tmp_path: Path) -> None:
    place = nfsd(tmp_path, a=STATES)
    (tmp_path / "clients/a/states").unlink()
    (tmp_path / "clients/a/states").mkdir()
    assert not _open_state.read(place).known
