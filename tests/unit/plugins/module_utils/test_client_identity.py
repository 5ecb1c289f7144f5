# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _client_identity
from ansible_collections.clusterkit.storage.plugins.module_utils._client_identity import Places

MINE = "5f1c0a52-6f5b-5b32-8d9a-0d6a4f9c2f11"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path / "clusterkit-nfs.conf"), str(tmp_path / "nfs4_unique_id"))


def test_it_is_set_for_now_and_for_the_next_boot(places: Places) -> None:
    Path(places.parameter).write_text("\n")
    change = _client_identity.ensure(MINE, check_mode=False, places=places)
    assert (change.changed, change.live) == (True, "")
    assert Path(places.parameter).read_text() == MINE
    assert f"options nfs nfs4_unique_id={MINE}\n" in Path(places.modprobe).read_text()
    assert not _client_identity.ensure(MINE, check_mode=False, places=places).changed


def test_without_a_loaded_nfs_client_the_file_is_enough(places: Places) -> None:
    change = _client_identity.ensure(MINE, check_mode=False, places=places)
    assert (change.changed, change.live) == (True, None)
    assert not Path(places.parameter).exists()
    assert not _client_identity.ensure(MINE, check_mode=False, places=places).changed


def test_check_mode_says_so_and_changes_nothing(places: Places) -> None:
    Path(places.parameter).write_text("other\n")
    change = _client_identity.ensure(MINE, check_mode=True, places=places)
    assert change.changed
    assert MINE in change.after
    assert Path(places.parameter).read_text() == "other\n"
    assert not Path(places.modprobe).exists()


@pytest.mark.parametrize("identifier", ["", "a b", "x" * 64, 'a"', "a\n"])
def test_what_the_kernel_or_modprobe_would_not_take_is_refused(identifier: str) -> None:
    assert "nfs4_unique_id" in str(_client_identity.problem(identifier))
    assert _client_identity.problem(MINE) is None
