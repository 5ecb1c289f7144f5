# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on a server: what becomes effective, what is refused, and what is taken back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_server,
    _exports,
    _files,
)
from ansible_collections.clusterkit.storage.tests.exports_server import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_first_run_exports_and_second_run_changes_nothing(server: Server) -> None:
    outcome = server.run(server.export("a"), server.export("b", ("10.0.0.1", "ro")))
    assert outcome.changed
    assert server.table == ["a 192.168.77.0/24 rw", "b 10.0.0.1 ro"]
    assert [client["options"][:2] for export in outcome.exports for client in export["clients"]] == [
        ["rw", "sync"],
        ["ro", "sync"],
    ]
    before = server.file.stat()
    again = server.run(server.export("a"), server.export("b", ("10.0.0.1", "ro")))
    assert not again.changed
    assert again.diff == []
    assert server.file.stat().st_ino == before.st_ino
    assert server.runs == [["-ra"]]
    assert [path.name for path in server.file.parent.iterdir()] == ["clusterkit.exports"]


def test_check_mode_says_what_the_run_then_does(server: Server) -> None:
    predicted = server.run(server.export("a"), check_mode=True)
    assert (server.runs, server.table, server.file.exists()) == ([], [], False)
    done = server.run(server.export("a"))
    assert (predicted.changed, predicted.exports, predicted.diff) == (done.changed, done.exports, done.diff)


def test_check_mode_on_a_bare_machine_predicts_and_says_so(server: Server) -> None:
    (server.root / "bin/exportfs").unlink()
    outcome = server.run(server.export("new"), check_mode=True)
    assert outcome.changed
    assert any("not installed" in warning for warning in outcome.warnings)
    assert any("do not exist yet" in warning for warning in outcome.warnings)
    refusal = server.refusal(server.export("new"))
    assert len(refusal.problems) == 2
    assert "does not exist" in refusal.message
    assert "exportfs is not installed" in refusal.message


def test_a_typo_changes_nothing_at_all(server: Server) -> None:
    server.run(server.export("a"), server.export("b"))
    content = server.file.read_text()
    refusal = server.refusal(server.export("a", ("192.168.77.0/24", "rww")), server.export("b"))
    assert 'exports[0].clients[0].options: "rww" is not an option of exports(5); did you mean "rw"?' in refusal.message
    assert (server.file.read_text(), server.runs) == (content, [["-ra"]])


def test_problems_come_in_the_order_of_the_list(server: Server) -> None:
    refusal = server.refusal(
        server.export("missing"), server.export("a", ("*", "rw")), server.export("gone", ("10.0.0.1", "rww"))
    )
    assert [problem.partition(".")[0] for problem in refusal.problems] == [
        *("exports[0]", "exports[1]", "exports[2]", "exports[2]")
    ]


def test_withdrawn_by_hand_is_repaired_and_reported(server: Server) -> None:
    server.run(server.export("a"), server.export("b"))
    server.exportfs(["exportfs", "-u", f"192.168.77.0/24:{server.root}/nfs/a"], timeout=1)
    outcome = server.run(server.export("a"), server.export("b"))
    assert (outcome.changed, outcome.file_changed, outcome.table_changed) == (True, False, True)
    assert [export["changed"] for export in outcome.exports] == [True, False]
    assert server.table == ["a 192.168.77.0/24 rw", "b 192.168.77.0/24 rw"]
    assert not server.run(server.export("a"), server.export("b")).changed


def test_changed_by_hand_is_repaired(server: Server) -> None:
    server.run(server.export("a"))
    Path(server.places.table).write_text(Path(server.places.table).read_text().replace("(rw,", "(ro,"))
    assert server.run(server.export("a")).changed
    assert server.table == ["a 192.168.77.0/24 rw"]


def test_a_comment_alone_needs_no_re_export(server: Server) -> None:
    server.run(server.export("a"))
    outcome = server.run({**server.export("a"), "comment": "new"})
    assert (outcome.file_changed, outcome.table_changed) == (True, False)
    assert server.runs == [["-ra"]]


def test_what_leaves_the_list_is_withdrawn_and_the_rest_is_not(server: Server) -> None:
    server.run(server.export("a"), server.export("b"))
    outcome = server.run(server.export("b"))
    assert [export["path"] for export in outcome.withdrawn] == [f"{server.root}/nfs/a"]
    assert server.table == ["b 192.168.77.0/24 rw"]
    assert server.run().changed
    assert server.table == []
    assert not server.run().changed


def test_an_empty_list_leaves_a_file_of_others_alone(server: Server) -> None:
    server.file.parent.mkdir()
    server.file.write_text(f"{server.root}/nfs/c 10.0.0.1(rw)\n")
    assert not server.run().changed
    assert server.runs == []


def test_an_empty_list_makes_no_file(server: Server) -> None:
    assert not server.run().changed
    assert not server.file.parent.exists()


def test_a_file_of_others_is_replaced_only_when_allowed(server: Server) -> None:
    Path(server.places.exports).write_text(f"{server.root}/nfs/c 10.0.0.1(rw)\n")
    refusal = server.refusal(server.export("a"), file=server.places.exports)
    assert "allow_takeover" in refusal.message
    server.run(server.export("a"), file=server.places.exports, allow_takeover=True)
    assert server.table == ["a 192.168.77.0/24 rw"]


def test_a_file_with_nothing_but_comments_may_be_replaced(server: Server) -> None:
    Path(server.places.exports).write_text("# See exports(5).\n")
    assert server.run(server.export("a"), file=server.places.exports).changed


@pytest.mark.parametrize("file", ["/etc/exports.d/x", "/etc/exports.d/.x.exports", "/srv/x.exports", "exports"])
def test_a_file_that_exportfs_does_not_read_is_refused(server: Server, file: str) -> None:
    assert "is not read by exportfs" in server.refusal(server.export("a"), file=file).message


def test_foreign_files_survive_byte_for_byte(server: Server) -> None:
    foreign = Path(server.places.exports)
    content = f"# mine \\\n{server.root}/nfs/c\t10.0.0.1(rw) \\\n 10.0.0.2(ro)\r\n".encode() + b"# \xff\n"
    foreign.write_bytes(content)
    server.exportfs(["exportfs", "-ra"], timeout=1)
    outcome = server.run(server.export("a"))
    server.run()
    assert foreign.read_bytes() == content
    assert server.table == ["c 10.0.0.1 rw", "c 10.0.0.2 ro"]
    assert [export["host"] for export in outcome.foreign] == ["10.0.0.1", "10.0.0.2"]


def test_same_directory_and_client_in_another_file_is_refused(server: Server) -> None:
    Path(server.places.exports).write_text(f"# x\n{server.root}/nfs/a 192.168.77.0/24(ro)\n")
    [problem] = server.refusal(server.export("a")).problems
    assert f"{server.places.exports}:2 exports {server.root}/nfs/a" in problem


def test_same_directory_by_a_link_is_refused(server: Server) -> None:
    (server.root / "nfs/link").symlink_to("a")
    [problem] = server.refusal(server.export("a"), server.export("link")).problems
    assert problem.startswith("exports[1].clients[0].host: ")
    assert "already (exports[0].clients[0])" in problem


def test_fsid_of_another_file_is_refused(server: Server) -> None:
    Path(server.places.exports).write_text(f"{server.root}/nfs/c 10.0.0.1(fsid=7)\n")
    [problem] = server.refusal(server.export("a", ("10.0.0.1", "fsid=7"))).problems
    assert f"fsid=7 belongs to {server.root}/nfs/c already" in problem


def test_a_typo_in_a_foreign_file_is_a_warning_and_costs_nothing_that_is_in_force(server: Server) -> None:
    foreign = Path(server.places.exports)
    foreign.write_text(f"{server.root}/nfs/b 10.0.0.1(rw)\n{server.root}/nfs/c 10.0.0.1(rw)\n")
    server.exportfs(["exportfs", "-ra"], timeout=1)
    foreign.write_text(f"{server.root}/nfs/b 10.0.0.1(rww)\n{server.root}/nfs/c 10.0.0.1(rw)\n")
    outcome = server.run(server.export("a"))
    assert server.table == ["a 192.168.77.0/24 rw", "b 10.0.0.1 rw", "c 10.0.0.1 rw"]
    assert any('did you mean "rw"' in warning for warning in outcome.warnings)
    assert not server.run(server.export("a")).changed


def test_exports_made_by_hand_for_other_directories_stay(server: Server) -> None:
    server.run(server.export("a"), server.export("b"))
    entries = _exports.parse(Path(server.places.table).read_text() + "/cluster 10.0.0.9(rw,sync)\n").effective
    server.write_table(entries)
    outcome = server.run(server.export("a"))
    assert server.table == ["/cluster 10.0.0.9 rw", "a 192.168.77.0/24 rw"]
    assert any("/cluster to 10.0.0.9 is exported, but in no file" in warning for warning in outcome.warnings)


def test_a_foreign_export_to_the_world_does_not_get_in_force_by_our_run(server: Server) -> None:
    server.run(server.export("a"))
    Path(server.places.exports).write_text(f"{server.root}/nfs/c 10.0.0.1 (rw)\n")
    assert not server.run(server.export("a")).changed  # nothing to do: a warning is enough
    assert "let in everybody" in server.refusal(server.export("b")).message
    assert server.table == ["a 192.168.77.0/24 rw"]


def test_what_does_not_become_effective_is_rolled_back(server: Server) -> None:
    server.run(server.export("a"))
    content = server.file.read_text()
    server.after = lambda: server.write_table(
        [
            entry
            for entry in _exports.parse(Path(server.places.table).read_text()).effective
            if "nfs/b" not in entry.path
        ]
    )
    refusal = server.refusal(server.export("a"), server.export("b"))
    assert f"{server.root}/nfs/b to 192.168.77.0/24 is not exported" in refusal.message
    assert "the old file is back" in refusal.message
    assert not refusal.changed
    assert (server.file.read_text(), server.table) == (content, ["a 192.168.77.0/24 rw"])
    assert [path.name for path in server.file.parent.iterdir()] == ["clusterkit.exports"]


def test_a_first_file_that_does_not_work_is_removed_again(server: Server) -> None:
    server.after = lambda: server.write_table([])
    server.refusal(server.export("a"))
    assert not server.file.exists()


def test_a_foreign_export_that_this_run_withdraws_is_a_failure(server: Server) -> None:
    Path(server.places.exports).write_text(f"{server.root}/nfs/c 10.0.0.1(rw)\n")
    server.exportfs(["exportfs", "-ra"], timeout=1)
    server.after = lambda: server.write_table(
        [
            entry
            for entry in _exports.parse(Path(server.places.table).read_text()).effective
            if "nfs/c" not in entry.path
        ]
    )
    refusal = server.refusal(server.export("a"))
    assert "nfs/c to 10.0.0.1, which is not in the list, was withdrawn" in refusal.message
    assert "but not the old table" in refusal.message
    assert refusal.changed


@pytest.mark.parametrize("step", ["replace_file", "_re_export"])
def test_a_run_killed_in_between_is_finished_by_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    server.run(server.export("a"), server.export("b"))

    class KilledError(BaseException):
        pass

    with monkeypatch.context() as patch:
        if step == "replace_file":
            real = _files.replace_file

            def replace_file(path: str, content: str, **more: Any) -> None:
                real(path, content, **more)
                if path == str(server.file):
                    raise KilledError

            patch.setattr(_files, "replace_file", replace_file)
        else:

            def killed(*_: object) -> None:
                raise KilledError

            patch.setattr(_export_server._Run, "_re_export", killed)
        with pytest.raises(KilledError):
            server.run(server.export("a"))
    assert server.table == ["a 192.168.77.0/24 rw", "b 192.168.77.0/24 rw"]
    outcome = server.run(server.export("a"))
    assert (outcome.changed, outcome.file_changed) == (True, False)
    assert server.table == ["a 192.168.77.0/24 rw"]
    assert [path.name for path in server.file.parent.iterdir()] == ["clusterkit.exports"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_file_that_cannot_be_written_changes_nothing(server: Server) -> None:
    server.file.parent.mkdir(mode=0o500)
    assert "cannot be written" in server.refusal(server.export("a")).message
    assert server.runs == []


def test_a_second_run_at_the_same_time_waits_and_gives_up(server: Server) -> None:
    with _files.locked(server.places.lock, 1):
        started = time.monotonic()
        assert "another run" in server.refusal(server.export("a"), timeout=0.3).message
        assert time.monotonic() - started < 5
    assert server.run(server.export("a")).changed


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_file_in_place_of_the_folder_is_named(server: Server, check_mode: bool) -> None:
    folder = server.file.parent
    folder.write_text("/data *(rw)\n")
    refusal = server.refusal(server.export("a"), check_mode=check_mode)
    assert refusal.problems == [f"{folder} is not a directory; {server.file} has to lie in it"]
    assert (server.runs, refusal.changed) == ([], False)
