# SPDX-License-Identifier: GPL-3.0-or-later
"""A criterion that is given counts, every one of them, and none is taken for another."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection, by_name
from ansible_collections.clusterkit.storage.plugins.module_utils._times import duration, seconds_since
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

NOW = seconds_since("2026-02-01T00:00:00Z", 0.0)
DAY = 86400


def volume(**values: Any) -> Volume:
    made = Volume.of({"metadata": {"name": "pv-1"}, "spec": {"nfs": {"server": "192.0.2.1", "path": "/nfs/a"}}})
    has = {
        "storage_class": "gold",
        "provisioner": "example.com/nfs",
        "phase": "Released",
        "policy": "Retain",
        "claim": ("shop", "data", "c1"),
        "provisioner_state": "stopped",
        "released_at": "2026-01-01T00:00:00Z",
        **values,
    }
    for name, value in has.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("name", "fitting", "other"),
    [
        ("names", ["a", "pv-*"], ["pv-2"]),
        ("storage_classes", ["tin", "gold"], ["tin"]),
        ("provisioners", ["x", "example.com/nfs"], ["example.com"]),
        ("phases", ["Released"], ["Bound", "Available"]),
        ("policies", ["Retain"], ["Delete"]),
        ("server", "192.0.2.1", "192.0.2.10"),
        ("drivers", ["csi", "nfs"], ["csi"]),
        ("path_prefix", "/nfs", "/nf"),
        ("claim_namespaces", ["sh*"], ["bank"]),
        ("abandoned", True, False),
        ("released_for", "4w", "5w"),
    ],
)
def test_each_criterion_counts_for_itself(name: str, fitting: Any, other: Any) -> None:
    assert NOW is not None
    now = -NOW
    assert Selection({name: fitting}).fits(volume(), now)
    assert not Selection({name: other}).fits(volume(), now)
    assert not Selection({"names": ["*"], name: other}).fits(volume(), now)


def test_the_driver_of_csi_is_known_by_its_kind_and_by_its_name() -> None:
    csi = Volume.of({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": "x"}}})
    for given in (["csi"], ["nfs.csi.k8s.io"]):
        assert Selection({"drivers": given}).fits(csi, 0.0)
    assert not Selection({"drivers": ["nfs"]}).fits(csi, 0.0)


def test_what_is_not_known_fits_no_criterion() -> None:
    bare = volume(claim=None, released_at=None, path=None)
    for given in ({"claim_namespaces": ["*"]}, {"released_for": "1s"}, {"path_prefix": "/"}):
        assert not Selection(given).fits(bare, 1e12)


def test_exactly_the_age_is_old_enough() -> None:
    assert NOW is not None
    selection = Selection({"released_for": "31d"})
    assert selection.fits(volume(), -NOW)
    assert not selection.fits(volume(), -NOW - 1)


def test_labels_are_left_to_the_api() -> None:
    selection = Selection({"label_selectors": ["app=web", "tier in (a,b)"]})
    assert selection.label_selector == "app=web,tier in (a,b)"
    assert Selection({"names": ["x"]}).label_selector == ""
    assert (selection.is_empty, Selection({"names": None}).is_empty) == (False, True)
    assert Selection({"abandoned": False}).asks_for_provisioners
    assert not selection.asks_for_provisioners


def test_a_criterion_that_makes_no_sense_is_named() -> None:
    with pytest.raises(ValueError, match=r'^selection: "name" is not a criterion; known are abandoned, claim_namesp'):
        Selection({"name": "x"})
    with pytest.raises(ValueError, match=r"^selection\.names is empty; leave it out to select by other criteria$"):
        Selection({"names": []})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 30 * DAY), ("2w", 14 * DAY), ("1d12h", DAY + 43200)],
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "1y", "1d ", "-1d", "1d,2h"])
def test_what_is_no_length_of_time_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match=rf'^"{text}" is not a length of time; write for example 12h, 30d or 1d12h$'):
        duration(text)


def test_volumes_in_the_order_of_their_names() -> None:
    assert [one.name for one in by_name([volume(name="b"), volume(name="a")])] == ["a", "b"]
