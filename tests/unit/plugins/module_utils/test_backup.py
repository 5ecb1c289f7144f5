# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for, what a generation is, and which ones have had their time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_settings
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Generation
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings
from hypothesis import given
from hypothesis import strategies as st

DAY = 86_400


def generation(name: str, seconds: float, **more: Any) -> Generation:
    return Generation("rsync", name, "web", "pv-1", "data", seconds, **{"complete": True, **more})


# --- arguments ---------------------------------------------------------------------------------------------


def test_a_slash_at_the_end_makes_no_difference() -> None:
    (one, two), problems = _backup.read_volumes(
        [
            {"name": "pv-1", "namespace": "web", "server_dir": "/srv/a/"},
            {"name": "pv-1", "namespace": None, "server_dir": "/srv/a"},
        ]
    )
    assert problems == []
    assert (one.server_dir, two.server_dir) == ("/srv/a", "/srv/a")
    assert (one.key, two.key) == ("web/pv-1", "_unclaimed/pv-1")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "../etc", "server_dir": "/srv/a"}, "volumes[0].name: '../etc' is not the name of a PersistentVolume"),
        ({"name": "a..b", "server_dir": "/srv/a"}, "volumes[0].name"),
        ({"name": "", "server_dir": "/srv/a"}, "volumes[0].name"),
        ({"name": "a." * 130 + "a", "server_dir": "/srv/a"}, "volumes[0].name"),
        (
            {"name": "a", "namespace": "_x", "server_dir": "/srv/a"},
            "volumes[0].namespace: '_x' is not the name of a namespace",
        ),
        ({"name": "a", "namespace": "a/b", "server_dir": "/srv/a"}, "volumes[0].namespace"),
        ({"name": "a", "server_dir": "srv"}, 'volumes[0].server_dir: "srv" is not an absolute path'),
        ({"name": "a", "server_dir": "/srv/../etc"}, 'contains ".."'),
        ({"name": "a", "server_dir": "/"}, "is the root directory"),
    ],
)
def test_wrong_volumes_are_named(item: dict[str, Any], words: str) -> None:
    (problem,) = _backup.read_volumes([item])[1]
    assert words in problem


def test_the_same_volume_twice_is_refused() -> None:
    item = {"name": "pv-1", "namespace": "web", "server_dir": "/srv/a"}
    assert _backup.read_volumes([item, item])[1] == ["volumes[1]: web/pv-1 is listed already (volumes[0])"]


@pytest.mark.parametrize(
    ("repository", "wrong"),
    [("/srv/a/backup", True), ("/srv", True), ("/srv/a", True), ("/srv/ab", False), ("sftp:host:/srv/a", False)],
)
def test_a_backup_never_lies_in_what_is_backed_up(repository: str, wrong: bool) -> None:
    volumes, _problems = _backup.read_volumes([{"name": "pv-1", "server_dir": "/srv/a"}])
    assert bool(_backup.overlap_problems(volumes, repository)) == wrong


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["/etc"], "'/etc' is not relative"),
        ([""], "'' is not relative"),
        (["a/../../etc"], "plain form"),
        (["a//b"], "plain form"),
        (["a/"], "plain form"),
        (["a\0b"], "zero byte"),
        (["a", "a/b"], "'a/b' lies in 'a'"),
        (["a", "a"], "listed twice"),
    ],
)
def test_paths_outside_of_the_volume_are_refused(paths: list[str], words: str) -> None:
    (problem,) = _backup.paths_problems("volumes[0]", paths)
    assert problem.startswith("volumes[0].paths") and words in problem


def test_right_paths() -> None:
    assert _backup.paths_problems("volumes[0]", ["a", "b/c", "b/cd", "..data", "new\nline"]) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"engine": "rsync", "repository": "backup"}, ["repository: 'backup' is not an absolute path"]),
        ({"engine": "rsync", "repository": "/a/../b"}, ["repository"]),
        ({"engine": "rsync", "password": "x"}, ["password: the engine rsync has no use for it"]),
        ({"engine": "rsync", "environment": {"A": "b"}}, ["environment: the engine rsync has no use"]),
        ({"repository": "", "password": "x"}, ["repository: is empty"]),
        ({}, ["password: is missing; expected one of password, password_file, password_command"]),
        ({"password": "x", "password_file": "/y"}, ["password: are given together: password, password_file"]),
        ({"password": ""}, ["password: is empty"]),
        ({"password": "x", "checksum": True}, ["checksum: restic reads"]),
        (
            {"password": "x", "bandwidth": -1, "parallel": 0},
            ["bandwidth: -1 is less than 0", "parallel: 0 is less than 1"],
        ),
        ({"password": "x", "nice": 20}, ["nice: 20 is not a number from 0 to 19"]),
        ({"password": "x"}, []),
        ({"engine": "rsync"}, []),
    ],
)
def test_settings(more: dict[str, Any], words: list[str]) -> None:
    problems = _backup_settings.of_arguments({"repository": "/backup", "unknown": 1, **more}).problems()
    assert len(problems) == len(words)
    assert all(problem.startswith(word) for problem, word in zip(problems, words, strict=True)), problems


def test_bandwidth_is_shared_and_secrets_are_not_shown() -> None:
    assert Settings("/b", bandwidth=1000, parallel=4).bandwidth_of_one == 250
    assert Settings("/b", bandwidth=1, parallel=4).bandwidth_of_one == 1
    assert Settings("/b", parallel=4).bandwidth_of_one == 0
    assert "hidden" not in repr(Settings("/b", password="hidden", environment={"A": "hidden"}))  # noqa: S106 - no secret


# --- generations -------------------------------------------------------------------------------------------


def test_names_of_generations_are_times() -> None:
    assert _backup.seconds_of_stamp(_backup.stamp(1_700_000_000)) == 1_700_000_000
    later = _backup.seconds_of_stamp("20260101T000000Z.2")
    assert later is not None and 0 < later - (_backup.seconds_of_stamp("20260101T000000Z") or 0) < 1
    assert [_backup.seconds_of_stamp(name) for name in ("latest", "20261301T000000Z", ".partial")] == [None] * 3


def test_selecting_a_generation() -> None:
    there = [
        generation("abcd1111", 1),
        generation("abcd2222", 2),
        generation("ef", 3, complete=False),
        generation("gh", 4, damaged=True),
        Generation("rsync", "other", "web", "pv-2", "", 9, True),
    ]
    assert _backup.select(there, "web/pv-1", "latest").generation == "abcd2222"
    assert _backup.select(there, "web/pv-1", "abcd1").generation == "abcd1111"
    assert _backup.select(there, "web/pv-1", "gh").generation == "gh"
    for wanted, words in (
        ("abcd", "2 generations begin with 'abcd'"),
        ("zzzz", "no generation 'zzzz'"),
        ("abc", "no generation 'abc'"),
    ):
        with pytest.raises(BackupError, match=words):
            _backup.select(there, "web/pv-1", wanted)
    with pytest.raises(BackupError, match="there is no backup"):
        _backup.select(there, "web/pv-3", "latest")
    with pytest.raises(BackupError, match="none of its 1 generations"):
        _backup.select(there[2:3], "web/pv-1", "latest")


def test_a_generation_as_data() -> None:
    one = generation("g", 0, counts={"files": 3, "bytes": 9}).data()
    assert (one["time"], one["files"], one["bytes"], one["complete"]) == ("1970-01-01T00:00:00Z", 3, 9, True)


# --- retention ---------------------------------------------------------------------------------------------


def test_retention_that_keeps_nothing_is_refused() -> None:
    assert _backup.keep_problems(None) == []
    assert _backup.keep_problems({"last": 1, "daily": None}) == []
    assert len(_backup.keep_problems({"last": 0, "daily": None})) == 1
    assert _backup.keep_problems({"last": 1, "daily": -2}) == ["retention.daily: -2 is less than 0"]


def test_days_weeks_months_years() -> None:
    # One at noon of each day, from Thursday 1 January 2026 on.
    start = 1_767_268_800
    there = [generation(_backup.stamp(start + day * DAY), start + day * DAY) for day in range(90)]
    kept = {one.generation for one in there} - {
        one.generation for one in _backup.expired(there, {"daily": 2, "monthly": 3})
    }
    assert sorted(name[:8] for name in kept) == ["20260131", "20260228", "20260330", "20260331"]
    kept = {one.generation for one in there} - {
        one.generation for one in _backup.expired(there, {"weekly": 2, "yearly": 1})
    }
    assert sorted(name[:8] for name in kept) == ["20260329", "20260331"]


times = st.lists(st.integers(0, 400), max_size=40, unique=True)
rules = st.fixed_dictionaries({}, optional={name: st.integers(0, 5) for name in _backup.KEEP})


@given(times, st.data(), rules)
def test_the_newest_good_generation_is_always_kept(days: list[int], data: st.DataObject, keep: dict[str, int]) -> None:
    there = [
        generation(str(day), day * DAY / 3, complete=data.draw(st.booleans()), damaged=data.draw(st.booleans()))
        for day in days
    ]
    gone = _backup.expired(there, keep)
    good = [one for one in there if one.good]
    assert len({one.generation for one in gone}) == len(gone)
    if not good:
        assert gone == []
        return
    newest = max(good, key=lambda one: one.time)
    assert newest not in gone and all(one.time < newest.time for one in gone)
    left = [one for one in good if one not in gone]
    assert len(left) >= min(len(good), max(keep.get("last", 0), 1))
    assert len(left) <= max(sum(keep.values()), 1)
    # Nothing more goes when it is applied again.
    assert _backup.expired([one for one in there if one not in gone], keep) == []


@given(times)
def test_more_is_kept_when_more_is_asked_for(days: list[int]) -> None:
    there = [generation(str(day), day * DAY) for day in days]
    fewer = {one.generation for one in _backup.expired(there, {"daily": 5, "weekly": 3})}
    more = {one.generation for one in _backup.expired(there, {"daily": 3, "weekly": 2})}
    assert fewer <= more


def test_a_sample_is_another_one_for_another_seed() -> None:
    paths = [f"f{number}" for number in range(1000)]
    assert len(_backup.sampled(paths, 5, 1)) == 50
    assert _backup.sampled(paths, 5, 1) == _backup.sampled(paths, 5, 1) != _backup.sampled(paths, 5, 2)
    assert len(_backup.sampled(paths, 0, 1)) == 1 and _backup.sampled([], 5, 1) == []
    assert len(_backup.sampled(paths, 99, 1)) == _backup.SAMPLED


# --- objects -----------------------------------------------------------------------------------------------


def test_objects_can_be_created_on_another_cluster() -> None:
    volume = {
        "kind": "PersistentVolume",
        "metadata": {
            "name": "pv-1", "uid": "u", "resourceVersion": "1", "finalizers": ["kubernetes.io/pv-protection"],
            "labels": {"a": "b"},
            "annotations": {"pv.kubernetes.io/bound-by-controller": "yes", "pv.kubernetes.io/provisioned-by": "x"},
        },
        "spec": {"claimRef": {"name": "data", "namespace": "web", "uid": "u2", "resourceVersion": "3"}},
        "status": {"phase": "Bound"},
    }  # fmt: skip
    claim = {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
    }
    files = _backup.object_files({"claim": claim, "volume": volume, "storage_class": None})
    assert files["objects-original.json"]["items"] == [volume, claim]
    one, two = files["objects.json"]["items"]
    assert one == {
        "kind": "PersistentVolume",
        "metadata": {"name": "pv-1", "labels": {"a": "b"}, "annotations": {"pv.kubernetes.io/provisioned-by": "x"}},
        "spec": {"claimRef": {"name": "data", "namespace": "web"}},
    }
    assert two == {"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
    assert volume["status"] == {"phase": "Bound"}  # the original is left alone
    assert _backup.cleaned({"kind": "X"}) == {"kind": "X"}


def test_addresses_are_shown_without_credentials() -> None:
    assert (
        _backup.without_credentials("rest:https://u:p@host/x and sftp:me@nas:/y")
        == "rest:https://***@host/x and sftp:me@nas:/y"
    )


# --- progress ----------------------------------------------------------------------------------------------


def test_lines_of_progress() -> None:
    progress = _backup.Progress(time.monotonic() - 10, files=5, bytes=10 << 20, total_files=10, total_bytes=30 << 20)
    line = progress.line("web/pv-1", progress.started + 10)
    assert line.endswith(" web/pv-1: 5 of 10 files, 10.0 MiB of 30.0 MiB, 1.0 MiB/s, about 0:00:20 left")
    line = _backup.Progress(0, files=5, bytes=100).line("web/pv-1", 10)
    assert line.endswith(" web/pv-1: 5 files, 100 B, 10 B/s")


def test_sizes_and_durations() -> None:
    assert [_backup.size(number) for number in (0, 1023, 1024, 5 << 30, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
        "3.0 TiB",
    ]
    assert _backup.duration(3 * 3600 + 125.4) == "3:02:05"
