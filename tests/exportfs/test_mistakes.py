# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes that took shares down, or opened them to the world, in roles that write a template and call exportfs.

First the harm as exportfs does it, so that the test is about something real; then what the module makes of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .chroot import FILE, Refused, Server

NETWORK = "192.168.77.0/24"
NAMES = ["yml", "data", "cfg", "log", "web", "spv_001", "spv_002", "spv_003", "dpv"]
OPTIONS = "rw,sync,no_root_squash,insecure,no_subtree_check"
RIGHT = [f"/srv/{name} {NETWORK} rw" for name in sorted(NAMES)]


def export(name: str, host: str = NETWORK, options: str = OPTIONS, **more: Any) -> dict[str, Any]:
    return {"path": f"/srv/{name}", "clients": [{"host": host, "options": [options]}], **more}


NINE = [export(name) for name in NAMES]


def lines(*names: str) -> str:
    return "".join(f"/srv/{name} {NETWORK}({OPTIONS})\n" for name in names)


@pytest.fixture
def nine(server: Server) -> Server:
    """The nine exports of the walk-through, in effect."""
    for name in NAMES:
        server.path(f"/srv/{name}").mkdir()
    assert server.ensure(*NINE).changed
    assert server.table == RIGHT
    return server


def refused(server: Server, *exports: dict[str, Any], **more: Any) -> Refused:
    """See that a list is refused and nothing was touched."""
    before = server.state
    with pytest.raises(Refused) as caught:
        server.ensure(*exports, **more)
    assert not caught.value.changed
    assert server.state == before
    return caught.value


@pytest.mark.parametrize(("position", "left"), [(0, 0), (4, 4), (8, 8)])
def test_typo_in_an_option(nine: Server, position: int, left: int) -> None:
    bad = lines(*NAMES).splitlines(keepends=True)
    bad[position] = bad[position].replace("(rw,", "(rww,")
    nine.path(FILE).unlink()
    nine.write("/etc/exports", "".join(bad))
    assert nine.run("exportfs", "-ra").returncode == 1
    assert len(nine.table) == left, "exportfs withdraws what stands at and behind the typo"

    nine.write("/etc/exports", "")
    nine.ensure(*NINE)
    exports = [*NINE]
    exports[position] = export(NAMES[position], options=OPTIONS.replace("rw,", "rww,"))
    error = refused(nine, *exports)
    assert error.problems == [
        f'exports[{position}].clients[0].options: "rww" is not an option of exports(5); did you mean "rw"?'
    ]
    assert nine.table == RIGHT


def test_space_before_the_bracket(nine: Server) -> None:
    nine.path(FILE).unlink()
    nine.write("/etc/exports", f"/srv/yml {NETWORK} (rw)\n")
    assert nine.run("exportfs", "-ra").returncode == 0
    assert nine.table == ["/srv/yml * rw", f"/srv/yml {NETWORK} ro"], "exportfs lets the whole world write"

    nine.write("/etc/exports", "")
    nine.ensure(*NINE)
    assert f"{NETWORK} (rw)" in str(refused(nine, export("yml", host=f"{NETWORK} (rw)")))
    # In somebody else's file it is named, and this run does not make it effective.
    nine.write("/etc/exports.d/other.exports", f"/srv/yml 10.0.0.0/8 (rw)\n{lines('data')}")
    error = refused(nine, *NINE[2:])
    assert any("lets in everybody" in problem or "would let in everybody" in problem for problem in error.problems)
    assert any('space between "10.0.0.0/8" and "(rw)"' in warning for warning in error.warnings)


def test_typo_in_a_path(nine: Server) -> None:
    error = refused(nine, export("ymll"), *NINE[1:])
    assert error.problems == ["exports[0].path: /srv/ymll does not exist"]
    # Once the wrong directory has been made, the loss of the right one is shown before it happens.
    nine.path("/srv/ymll").mkdir()
    prediction = nine.ensure(export("ymll"), *NINE[1:], check_mode=True)
    assert prediction.withdrawn == [{"path": "/srv/yml", "host": NETWORK}]
    assert nine.table == RIGHT


def test_path_that_is_a_file(nine: Server) -> None:
    nine.path("/srv/a-file").touch()
    nine.write("/etc/exports", f"/srv/a-file {NETWORK}(rw,no_subtree_check)\n")
    nine.run("exportfs", "-ra")
    assert f"/srv/a-file {NETWORK} rw" in nine.table, "exportfs exports it all the same"
    nine.write("/etc/exports", "")
    nine.run("exportfs", "-ra")
    assert refused(nine, export("a-file")).problems == ["exports[0].path: /srv/a-file is not a directory"]


def test_the_same_path_and_client_in_another_file(nine: Server) -> None:
    nine.write("/etc/exports", f"/srv/yml {NETWORK}(ro,no_subtree_check)\n")
    assert "incompatible duplicated export entries" in nine.run("exportfs", "-ra").stderr
    assert f"/srv/yml {NETWORK} ro" in nine.table, "the first file wins, whatever ours says"
    error = refused(nine, *NINE)
    assert error.problems == [f'exports[0].clients[0].host: /etc/exports:1 exports /srv/yml to "{NETWORK}" too']


def test_the_same_path_and_client_twice(nine: Server) -> None:
    error = refused(nine, *NINE, export("yml", options="ro"))
    assert error.problems == [
        f'exports[9].clients[0].host: /srv/yml has the client "{NETWORK}" already (exports[0].clients[0])'
    ]


def test_second_run_over_a_dead_table(nine: Server) -> None:
    """After a handler failed the file was right, and nobody looked at the table any more."""
    nine.write("/var/lib/nfs/etab", "")
    assert nine.ensure(*NINE, check_mode=True).table_changed
    assert nine.table == [], "check mode repairs nothing"
    outcome = nine.ensure(*NINE)
    assert (outcome.changed, outcome.file_changed, outcome.table_changed) == (True, False, True)
    assert nine.table == RIGHT
    assert not nine.ensure(*NINE).changed


def test_export_withdrawn_by_hand(nine: Server) -> None:
    nine.run("exportfs", "-u", f"{NETWORK}:/srv/log")
    assert len(nine.table) == 8
    outcome = nine.ensure(*NINE)
    assert [one["path"] for one in outcome.exports if one["changed"]] == ["/srv/log"]
    assert outcome.changed and not outcome.file_changed
    assert nine.table == RIGHT


def test_export_changed_by_hand(nine: Server) -> None:
    nine.run("exportfs", "-o", "ro,no_subtree_check", f"{NETWORK}:/srv/log")
    assert f"/srv/log {NETWORK} ro" in nine.table
    assert nine.ensure(*NINE).changed
    assert nine.table == RIGHT


def test_client_added_by_hand(nine: Server) -> None:
    nine.run("exportfs", "-o", "rw,no_subtree_check", "10.9.9.9:/srv/log")
    outcome = nine.ensure(*NINE)
    assert outcome.withdrawn == [{"path": "/srv/log", "host": "10.9.9.9"}]
    assert nine.table == RIGHT


def test_exit_status_1_for_identical_duplicates(nine: Server) -> None:
    """All exports are right, and exportfs fails: the table is the judge."""
    nine.write("/etc/exports.d/other.exports", lines("extra", "extra"))
    nine.path("/srv/extra").mkdir()
    assert nine.run("exportfs", "-ra").returncode == 1
    assert sorted([*RIGHT, f"/srv/extra {NETWORK} rw"]) == nine.table
    nine.run("exportfs", "-u", f"{NETWORK}:/srv/log")
    outcome = nine.ensure(*NINE)
    assert outcome.changed
    assert any("duplicated export entries" in warning for warning in outcome.warnings)
    assert not nine.ensure(*NINE).changed


def test_exit_status_0_for_an_export_to_the_world(nine: Server) -> None:
    for host in ("*", "", "0.0.0.0/0", "::/0", "10.0.0.0/0.0.0.0", "**", "0.0.0.0/"):
        assert "lets in everybody" in str(refused(nine, export("yml", host=host, options="ro,all_squash")))
    outcome = nine.ensure(export("yml", host="*"), allow_world=True)
    assert outcome.changed and nine.table == ["/srv/yml * rw"]


def test_typo_in_a_foreign_file(nine: Server) -> None:
    """It is not ours to mend; what it costs is said, and what is in effect behind it is not lost by our run."""
    for name in ("f1", "f2"):
        nine.path(f"/srv/{name}").mkdir()
    nine.write("/etc/exports", lines("f1", "f2"))
    nine.run("exportfs", "-ra")
    foreign = [f"/srv/f1 {NETWORK} rw", f"/srv/f2 {NETWORK} rw"]
    assert nine.table == sorted([*RIGHT, *foreign])
    nine.write("/etc/exports", lines("f1").replace("(rw,", "(rww,") + lines("f2"))

    outcome = nine.ensure(*NINE[:8])
    said = "\n".join(outcome.warnings)
    assert '"rww" is not an option of exports(5)' in said
    assert f"these exports are lost: /srv/f1 to {NETWORK}, /srv/f2 to {NETWORK}" in said
    assert nine.table == sorted([*RIGHT[:2], *RIGHT[3:], *foreign]), "only /srv/dpv is withdrawn"


def test_entry_that_does_not_become_effective_is_taken_back(nine: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody changes another file between our look and exportfs's: ours is not effective, the old file is back."""
    before = nine.state[0]
    from ansible_collections.clusterkit.storage.plugins.module_utils import _export_server

    replace_file = _export_server._files.replace_file

    def meanwhile(path: str, content: str, **more: Any) -> None:
        replace_file(path, content, **more)
        if path == FILE and "cfg 10.0.0.1" in content:
            # Inside the chroot: the first file wins over ours.
            Path("/etc/exports").write_text("/srv/cfg 10.0.0.1(ro,no_subtree_check)\n")

    monkeypatch.setattr(_export_server._files, "replace_file", meanwhile)
    with pytest.raises(Refused) as caught:
        nine.ensure(*NINE, export("cfg", host="10.0.0.1"))
    assert "rw wanted" in str(caught.value) and "ro found" in str(caught.value)
    assert nine.state[0] == before
    assert set(RIGHT) <= set(nine.table)


FOREIGN = (
    b"# f\xfcr alle \\\n/srv/f1\t10.0.0.1(rw,no_subtree_check)   # trailing\r\n\n\n"
    b'"/srv/f 2" -ro,no_subtree_check 10.0.0.2 \\\n   10.0.0.3(rw)\n#end without newline'
)


def test_foreign_content_survives_byte_for_byte(nine: Server) -> None:
    for name in ("f1", "f 2"):
        nine.path(f"/srv/{name}").mkdir()
    files = [
        "/etc/exports",
        "/etc/exports.d/other.exports",
        "/etc/exports.d/ignored.txt",
        "/etc/exports.d/.hidden.exports",
    ]
    for name in files:
        nine.write(name, FOREIGN if name == files[0] else b"# \xff\x00 odd bytes\n")
    before = {name: (nine.path(name).read_bytes(), nine.path(name).stat()) for name in files}

    nine.ensure(*NINE[:3])  # a change
    nine.ensure(*NINE[:3])  # none
    refused(nine, export("yml", options="rww"))
    nine.run("exportfs", "-u", f"{NETWORK}:/srv/yml")
    nine.ensure(*NINE[:3])  # a repair
    nine.ensure()  # everything withdrawn
    assert nine.state[0].startswith("# Managed by")

    for name, (content, stat) in before.items():
        assert nine.path(name).read_bytes() == content
        now = nine.path(name).stat()
        assert (now.st_ino, now.st_mtime_ns, now.st_mode) == (stat.st_ino, stat.st_mtime_ns, stat.st_mode)
    names = {path.name for path in nine.path("/etc/exports.d").iterdir()}
    assert names == {"clusterkit.exports", "other.exports", "ignored.txt", ".hidden.exports"}, "nothing is left behind"


def test_foreign_file_is_not_taken_over(nine: Server) -> None:
    nine.path("/srv/f1").mkdir()
    nine.write("/etc/exports", lines("f1"))
    nine.ensure()
    error = refused(nine, export("web"), file="/etc/exports")
    assert "was not written by this module and holds 1 exports" in str(error)
    assert nine.read("/etc/exports") == lines("f1")
    nine.ensure(export("web"), file="/etc/exports", allow_takeover=True)
    assert nine.table == [f"/srv/web {NETWORK} rw"]
