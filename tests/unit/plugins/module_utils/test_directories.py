# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories get what was asked for, what they hold is not touched, and nobody can put a link in the way."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _directories
from ansible_collections.clusterkit.storage.plugins.module_utils._directories import Outcome
from ansible_collections.clusterkit.storage.tests.properties import examples
from hypothesis import given
from hypothesis import strategies as st

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give directories away")
ME, MY_GROUP = str(os.geteuid()), str(os.getegid())


def item(path: Path | str, mode: Any = "0755", owner: str = ME, group: str = MY_GROUP) -> dict[str, Any]:
    return {"path": str(path), "owner": owner, "group": group, "mode": mode}


def run(*items: dict[str, Any], check_mode: bool = False) -> Outcome:
    outcome = _directories.ensure_directories(items, check_mode=check_mode)
    assert outcome.problems == []
    return outcome


def refusal(*items: dict[str, Any], check_mode: bool = False) -> list[str]:
    outcome = _directories.ensure_directories(items, check_mode=check_mode)
    assert outcome.refused
    assert not outcome.changed
    return outcome.problems


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


@pytest.fixture(autouse=True)
def _plain_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("mode", ["0777", "777", "0700", "2775", "1777", "4755", "7000"])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_mode_is_as_asked_whatever_the_umask(tmp_path: Path, mode: str, umask: int) -> None:
    old = os.umask(umask)
    try:
        outcome = run(item(tmp_path / "new", mode))
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "new") == f"{int(mode, 8):04o}"
    assert (outcome.changed, outcome.directories[0]["created"]) == (True, True)
    assert not run(item(tmp_path / "new", mode)).changed


def test_mode_of_an_existing_directory_changes_and_what_it_holds_does_not(tmp_path: Path) -> None:
    (tmp_path / "old/inside").mkdir(parents=True)
    (tmp_path / "old").chmod(0o2750)
    (tmp_path / "old/inside").chmod(0o700)
    outcome = run(item(tmp_path / "old", "0777"))
    assert (mode_of(tmp_path / "old"), mode_of(tmp_path / "old/inside")) == ("0777", "0700")
    assert outcome.directories[0]["created"] is False
    assert outcome.diff["before"].endswith(" 2750\n")
    assert outcome.diff["after"].endswith(" 0777\n")


@needs_root
def test_owner_group_and_setgid_together(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    asked = [item(tmp_path / "old", "6775", "1234", "4321"), item(tmp_path / "new", "2770", "daemon", "daemon")]
    assert [entry["changed"] for entry in run(*asked).directories] == [True, True]
    assert not run(*asked).changed
    found = (tmp_path / "old").stat()
    assert (found.st_uid, found.st_gid, mode_of(tmp_path / "old")) == (1234, 4321, "6775")
    assert mode_of(tmp_path / "new") == "2770"


@needs_root
def test_while_the_owner_changes_nobody_gets_more_than_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o770)
    modes = []
    real = os.fchown

    def fchown(descriptor: int, uid: int, gid: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor, uid, gid)

    monkeypatch.setattr(_directories.os, "fchown", fchown)
    run(item(tmp_path / "old", "0705", "1234", "4321"), item(tmp_path / "new", "0777", "1234", "4321"))
    assert modes == [0o700, 0o700]


@needs_root
def test_missing_parents_are_made_plain_and_named(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        outcome = run(item(tmp_path / "a/b/c", "0777", "1234", "1234"), item(tmp_path / "a/b/d"))
    finally:
        os.umask(old)
    assert outcome.parents == [str(tmp_path / "a"), str(tmp_path / "a/b")]
    assert (mode_of(tmp_path / "a"), (tmp_path / "a").stat().st_uid) == ("0755", 0)
    assert [entry["path"] for entry in outcome.directories] == [str(tmp_path / "a/b/c"), str(tmp_path / "a/b/d")]


def test_a_listed_parent_gets_its_own_mode_even_when_listed_last(tmp_path: Path) -> None:
    outcome = run(item(tmp_path / "a/b", "0777"), item(tmp_path / "a", "0711"))
    assert (mode_of(tmp_path / "a"), outcome.parents) == ("0711", [])


def test_check_mode_and_diff_say_what_the_run_does(tmp_path: Path) -> None:
    predicted = run(item(tmp_path / "a", "0777"), check_mode=True)
    assert not (tmp_path / "a").exists()
    done = run(item(tmp_path / "a", "0777"))
    assert (predicted.changed, predicted.directories, predicted.diff) == (done.changed, done.directories, done.diff)


def test_all_problems_at_once_and_nothing_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    problems = refusal(
        item(tmp_path / "fine"),
        item("relative"),
        item(f"{tmp_path}/../x"),
        item(tmp_path / "file"),
        item(tmp_path / "link"),
        item(tmp_path / "file/below"),
        item(tmp_path / "a", 511),
        item(tmp_path / "b", owner="nobody-knows-him", group="nobody-knows-them"),
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "directories[1].path",
        "directories[2].path",
        "directories[3].path",
        "directories[4].path",
        "directories[5].path",
        "directories[6].mode",
        "directories[7].owner",
        "directories[7].group",
    ]
    assert not (tmp_path / "fine").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "not an absolute path"),
        ("relative", "not an absolute path"),
        ("~/x", "not an absolute path"),
        ("/", "root directory"),
        ("/srv/../x", '".."'),
        ("/srv//x", 'write "/srv/x"'),
        ("/srv/./x", 'write "/srv/x"'),
        ("/srv/\0x", "NUL"),
    ],
)
def test_paths_that_are_refused(path: str, words: str) -> None:
    [problem] = refusal(item(path))
    assert words in problem


@pytest.mark.parametrize("mode", [511, 755, 0o777, -1, True, None, "", "u=rwx", "0o755", "0888", "77777", "rwxr-xr-x"])
def test_modes_that_are_refused(tmp_path: Path, mode: Any) -> None:
    [problem] = refusal(item(tmp_path / "a", mode))
    assert problem.startswith("directories[0].mode: ")


def test_a_mode_that_yaml_converted_is_shown_as_what_it_was(tmp_path: Path) -> None:
    [problem] = refusal(item(tmp_path / "a", 511))
    assert '(this is "0777")' in problem


def test_unknown_names_are_only_warned_about_in_check_mode(tmp_path: Path) -> None:
    outcome = run(item(tmp_path / "a", owner="nobody-knows-him"), check_mode=True)
    assert (outcome.changed, len(outcome.warnings)) == (True, 1)


def test_ids_out_of_range_are_refused(tmp_path: Path) -> None:
    assert refusal(item(tmp_path / "a", owner="4294967295"))


def test_the_same_directory_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    [problem] = refusal(item(tmp_path / "real/a"), item(tmp_path / "link/a"))
    assert "is listed already (directories[0])" in problem


def test_links_on_the_way_are_followed_where_only_root_can_make_them(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    run(item(tmp_path / "link/a", "0711"))
    assert mode_of(tmp_path / "real/a") == "0711"


def test_links_on_the_way_are_refused_where_others_can_make_them(tmp_path: Path) -> None:
    """An exported directory: whoever mounts it could lead root anywhere."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export").chmod(0o777)
    (tmp_path / "export/link").symlink_to("/etc")
    [problem] = refusal(item(tmp_path / "export/link/a"))
    assert "others can write to" in problem


def test_a_dangling_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    [problem] = refusal(item(tmp_path / "link/a"))
    assert "leads nowhere" in problem


@pytest.mark.parametrize("name", ["a", "a/b"])
def test_a_link_put_in_the_way_after_the_plan_is_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    (victim / "b").mkdir(parents=True)
    (victim / "b").chmod(0o700)
    (tmp_path / "a/b").mkdir(parents=True)
    plan = _directories.make_plan([item(tmp_path / "a/b", "0777")])
    (tmp_path / "a").rename(tmp_path / "moved")
    if name == "a":
        (tmp_path / "a").symlink_to("victim")
    else:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/b").symlink_to("../victim/b")
    with pytest.raises(OSError):
        _directories.apply(plan.steps[-1])
    assert mode_of(victim / "b") == "0700"


@pytest.mark.skipif(ROOT, reason="root may do everything")
def test_what_cannot_be_done_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    outcome = _directories.ensure_directories([item(tmp_path / "closed/a"), item(tmp_path / "open")], check_mode=False)
    assert not outcome.refused
    assert outcome.problems == [f"{tmp_path}/closed/a: Permission denied"]
    assert [entry["changed"] for entry in outcome.directories] == [False, True]


def test_what_fails_is_told_and_the_rest_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir

    def mkdir(name: str, *arguments: Any, **more: Any) -> None:
        if name == "bad":
            raise OSError(28, "No space left on device")
        real(name, *arguments, **more)

    monkeypatch.setattr(_directories.os, "mkdir", mkdir)
    outcome = _directories.ensure_directories([item(tmp_path / "bad"), item(tmp_path / "good")], check_mode=False)
    assert (outcome.refused, outcome.changed) == (False, True)
    assert outcome.message == f"a problem: {tmp_path}/bad: No space left on device"
    assert [(entry["changed"], "msg" in entry) for entry in outcome.directories] == [(False, True), (True, False)]


@pytest.fixture
def selinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without SELinux keeps the contexts too; only this file tells one that it is on."""
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(_directories, "SELINUX", tmp_path / "enforce")


CONTEXT = "security.selinux"


@needs_root
@pytest.mark.usefixtures("selinux")
@pytest.mark.parametrize("level", ["", ":s0", ":s0:c1,c2"])
def test_selinux_type_changes_and_the_rest_of_the_context_does_not(tmp_path: Path, level: str) -> None:
    for name in ("a", "a/below"):
        (tmp_path / name).mkdir(mode=0o755)
        os.setxattr(tmp_path / name, CONTEXT, f"system_u:object_r:default_t{level}\0".encode())
    wanted = {**item(tmp_path / "a"), "setype": "public_content_rw_t"}
    predicted = run(wanted, check_mode=True)
    done = run(wanted)
    assert done.changed
    assert predicted.diff == done.diff
    assert "default_t" in done.diff["before"]
    assert done.directories[0]["setype"] == "public_content_rw_t"
    assert os.getxattr(tmp_path / "a", CONTEXT) == f"system_u:object_r:public_content_rw_t{level}\0".encode()
    assert os.getxattr(tmp_path / "a/below", CONTEXT) == f"system_u:object_r:default_t{level}\0".encode()
    assert not run(wanted).changed
    assert not run(item(tmp_path / "a")).changed, "not asked for, so left alone"


@pytest.mark.usefixtures("selinux")
def test_what_selinux_does_not_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    monkeypatch.setattr(_directories.os, "getxattr", lambda *_a, **_k: b"system_u:object_r:default_t:s0\0")

    def unknown(*_arguments: Any) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(_directories.os, "setxattr", unknown, raising=False)
    wanted = {**item(tmp_path / "a"), "setype": "no_such_t"}
    outcome = _directories.ensure_directories([wanted], check_mode=False)
    assert outcome.problems == [f'{tmp_path}/a: the SELinux policy of this host has no type "no_such_t"']
    assert outcome.directories[0]["setype"] == "default_t"

    def denied(*_arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_directories.os, "setxattr", denied)
    outcome = _directories.ensure_directories([wanted], check_mode=False)
    assert outcome.problems == [f"{tmp_path}/a: Permission denied"]


@pytest.mark.usefixtures("selinux")
def test_a_directory_without_a_context_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    assert refusal({**item(tmp_path / "a"), "setype": "nfs_t"}) == [
        f"directories[0].path: {tmp_path}/a has no SELinux context: No data available"
    ]


def test_selinux_type_has_no_effect_where_it_is_off_and_its_name_is_checked(tmp_path: Path) -> None:
    run({**item(tmp_path / "a"), "setype": "public_content_rw_t"})
    assert not run({**item(tmp_path / "a"), "setype": None}).changed
    assert refusal({**item(tmp_path / "a"), "setype": "system_u:object_r:nfs_t:s0"}) == [
        'directories[0].setype: "system_u:object_r:nfs_t:s0" is not the name of an SELinux type such as '
        "public_content_rw_t"
    ]


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
modes = st.builds("{}7{}".format, st.sampled_from("01234567"), st.sampled_from(["00", "55", "77", "41"]))


@examples(60)
@given(st.dictionaries(names, modes, max_size=5), st.dictionaries(names, modes, max_size=4))
def test_any_list_is_reached_in_one_run_and_touches_nothing_else(there: dict[str, str], listed: dict[str, str]) -> None:
    if not ROOT:  # parents that are not listed belong to root
        listed = {
            name: mode
            for name, mode in listed.items()
            if all(parent.as_posix() in listed for parent in list(Path(name).parents)[:-1])
        }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, mode in there.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name).chmod(int(mode, 8))
        before = {path.relative_to(root).as_posix(): mode_of(path) for path in root.rglob("*")}
        items = [item(root / name, mode) for name, mode in listed.items()]
        predicted = run(*items, check_mode=True)
        done = run(*items)
        assert (predicted.changed, predicted.diff) == (done.changed, done.diff)
        assert not run(*items).changed
        after = {path.relative_to(root).as_posix(): mode_of(path) for path in root.rglob("*")}
        made = {Path(path).relative_to(root).as_posix(): "0755" for path in done.parents}
        assert after == {**before, **made, **listed}
