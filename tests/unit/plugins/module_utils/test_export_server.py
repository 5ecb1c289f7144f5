# SPDX-License-Identifier: GPL-3.0-or-later
"""A run on a server, with a stand-in for exportfs: it reads the same files and writes the same table.

That the stand-in is right about exportfs is shown by the tests in the lab.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_server, _exports
from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import (
    ExportsError,
    Outcome,
    Places,
    Request,
    ensure_exports,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished


class Server:
    """A server below a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "etc/exports.d/clusterkit.exports"
        self.places = Places(
            exports=str(root / "etc/exports"),
            folder=str(root / "etc/exports.d"),
            table=str(root / "etab"),
            features=str(root / "export_features"),
            lock=str(root / "lock"),
            mountinfo=str(root / "mountinfo"),
            fstab=str(root / "fstab"),
            units=str(root / "units"),
            path=str(root / "bin"),
        )
        self.runs: list[list[str]] = []
        self.after: Callable[[], object] = lambda: None  # what goes wrong once exportfs is done
        (root / "etc").mkdir()
        (root / "bin").mkdir()
        self.install()
        for name in "abc":
            self.directory(name)

    def install(self) -> None:
        program = self.root / "bin/exportfs"
        program.touch()
        program.chmod(0o755)

    def directory(self, name: str) -> str:
        path = self.root / "nfs" / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def export(self, name: str, *clients: tuple[str, str]) -> dict[str, Any]:
        listed = clients or (("192.168.77.0/24", "rw"),)
        return {
            "path": str(self.root / "nfs" / name),
            "clients": [{"host": host, "options": options.split(",")} for host, options in listed],
            "comment": "",
        }

    def run(self, *exports: dict[str, Any], **more: Any) -> Outcome:
        return ensure_exports(Request(exports=exports, file=more.pop("file", str(self.file)), **more), self.places)

    def refusal(self, *exports: dict[str, Any], **more: Any) -> ExportsError:
        with pytest.raises(ExportsError) as caught:
            self.run(*exports, **more)
        return caught.value

    @property
    def table(self) -> list[str]:
        path = Path(self.places.table)
        entries = _exports.parse(path.read_text() if path.exists() else "").effective
        root = str(self.root / "nfs") + "/"
        return sorted(f"{entry.path.replace(root, '')} {entry.host} {entry.meaning.options()[0]}" for entry in entries)

    def write_table(self, entries: Sequence[_exports.Entry]) -> None:
        lines = [_exports.format_export(entry.path, [(entry.host, entry.meaning.options())]) for entry in entries]
        Path(self.places.table).write_text("".join(f"{line}\n" for line in lines))

    def exportfs(self, argv: Sequence[str], *, timeout: float) -> Finished:  # noqa: ARG002 (the signature of what it replaces)
        self.runs.append(list(argv[1:]))
        table = Path(self.places.table)
        known = _exports.parse(table.read_text() if table.exists() else "").effective
        if argv[1] == "-u":
            left = [entry for entry in known if f"{entry.host}:{entry.path}" not in argv[2:]]
        else:
            left = [
                entry
                for text in _export_server.exports_files(self.places).values()
                for entry in _exports.parse(text).effective
            ]
            if argv[1] == "-a":
                there = {(entry.path, entry.host) for entry in left}
                left += [entry for entry in known if (entry.path, entry.host) not in there]
        self.write_table(left)
        self.after()
        return Finished(list(argv), 0, "", "", timed_out=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    built = Server(tmp_path)
    monkeypatch.setattr(_export_server._process, "run", built.exportfs)
    return built


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


def test_an_exportfs_that_hangs_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Finished(["exportfs", "-ra"], None, "", "", timed_out=True)
    monkeypatch.setattr(_export_server._process, "run", lambda _argv, timeout: hangs)  # noqa: ARG005 (the signature of what it replaces)
    assert "no end within the time limit" in server.refusal(server.export("a")).message
    assert not server.file.exists()


def test_a_file_system_that_cannot_be_exported_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """exportfs takes it into the table all the same, and no client can mount it."""

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        server.exportfs(argv, timeout=timeout)
        words = f"exportfs: {server.root}/nfs/a requires fsid= for NFS export\nexportfs: something else\n"
        return Finished(list(argv), 1, "", words, timed_out=False)

    monkeypatch.setattr(_export_server._process, "run", run)
    refusal = server.refusal(server.export("a"))
    assert refusal.problems == [f"{server.root}/nfs/a requires fsid= for NFS export"]
    assert "exportfs: something else" in refusal.warnings


@pytest.mark.parametrize("step", ["replace_file", "_re_export"])
def test_a_run_killed_in_between_is_finished_by_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    server.run(server.export("a"), server.export("b"))

    class KilledError(BaseException):
        pass

    with monkeypatch.context() as patch:
        if step == "replace_file":
            real = _export_server._files.replace_file

            def replace_file(path: str, content: str, **more: Any) -> None:
                real(path, content, **more)
                if path == str(server.file):
                    raise KilledError

            patch.setattr(_export_server._files, "replace_file", replace_file)
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
    with _export_server._locked(server.places.lock, 1):
        started = time.monotonic()
        assert "another run" in server.refusal(server.export("a"), timeout=0.3).message
        assert time.monotonic() - started < 5
    assert server.run(server.export("a")).changed


def test_names_are_resolved_as_exportfs_does(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    book = {"alpha": "10.0.0.1", "alpha.example.com": "10.0.0.1", "beta": "10.0.0.2"}

    def getaddrinfo(name: str, *_: object) -> list[Any]:
        if name not in book:
            raise socket.gaierror(-2, "Name or service not known")
        canonical = "alpha.example.com" if book[name] == "10.0.0.1" else name
        return [(2, 2, 17, canonical, (book[name], 0))]

    monkeypatch.setattr(_export_server.socket, "getaddrinfo", getaddrinfo)
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

    monkeypatch.setattr(_export_server.socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    addresses, failed = _export_server.resolve(["alpha"], 0.2)
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

    monkeypatch.setattr(_export_server._process, "run", run)
    assert (
        '"xprtsec=tls" needs nfs-utils 2.6.3; this is 2.6.2'
        in server.refusal(server.export("a", ("10.0.0.1", "rw,xprtsec=tls"))).message
    )


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
    entry = _exports.Entry("/a", host, _exports.Meaning(), 1)
    assert _export_server._export_name(entry) == name


class Systemd:
    """systemctl beside exportfs; what the unit of the server was ordered after in an earlier run."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[list[str]] = []
        self.status, self.reload_needed = 0, "no"
        program = server.root / "bin/systemctl"
        program.touch()
        program.chmod(0o755)
        self.file = server.root / "units/nfs-server.service.d/clusterkit.exports.conf"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("[Unit]\nRequiresMountsFor=/old\n")

        def run(argv: Sequence[str], *, timeout: float) -> Finished:
            if Path(argv[0]).name != "systemctl":
                return server.exportfs(argv, timeout=timeout)
            self.runs.append(list(argv[1:]))
            return Finished(list(argv), self.status, f"{self.reload_needed}\n", "no bus", timed_out=False)

        monkeypatch.setattr(_export_server._process, "run", run)

    @property
    def reloaded(self) -> bool:
        return ["daemon-reload"] in self.runs


def test_an_order_that_is_not_needed_any_more_is_taken_from_systemd(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(server, monkeypatch)
    predicted = server.run(server.export("a"), check_mode=True)
    assert predicted.order_changed
    assert systemd.file.exists()
    assert not systemd.reloaded
    assert server.run(server.export("a")).order_changed
    assert not systemd.file.exists()
    assert systemd.reloaded
    systemd.runs.clear()
    assert not server.run(server.export("a")).changed
    assert not systemd.reloaded


def test_a_systemd_that_refuses_is_a_failure_after_the_exports(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(server, monkeypatch)
    systemd.status = 1
    refusal = server.refusal(server.export("a"))
    assert "the exports are effective, but nfs-server is not ordered after" in refusal.message
    assert "no bus" in refusal.message
    assert refusal.changed
    assert server.table == ["a 192.168.77.0/24 rw"]


def test_an_order_that_cannot_be_taken_away_is_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(server, monkeypatch)

    def remove(_path: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(_export_server._files, "remove_file", remove)
    assert "cannot be written: " in server.refusal(server.export("a")).message
    assert systemd.file.exists()
