# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what is repaired, what is withdrawn, and above all what is left alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_list,
    _export_options,
    _export_table,
    _exports,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._export_table import Clients, Key, Rules, make_plan
from hypothesis import given
from hypothesis import strategies as st

RW, RO = _export_options.read_options("rw")[0], Meaning()
A, B, C = Key("/a", "h"), Key("/b", "h"), Key("/c", "h")


def test_nothing_to_do_when_the_table_is_as_wanted() -> None:
    plan = make_plan({A: RW}, [A], {B: RO}, {A: RW, B: RO})
    assert plan.table_is_right
    assert plan.after == plan.before
    assert plan.failures(plan.before) == []
    assert make_plan({A: RW}, [A], {B: RO, C: RO}, {A: RW, B: RO}).pending == [C]


def test_missing_and_different_exports_are_repaired() -> None:
    plan = make_plan({A: RW, B: RW}, [A, B], {}, {B: RO})
    assert plan.wrong == {A: ["not exported"], B: ["rw wanted", "ro found"]}
    assert plan.after == {A: RW, B: RW}


def test_what_left_the_list_is_withdrawn() -> None:
    plan = make_plan({A: RW}, [A, B], {}, {A: RW, B: RW})
    assert plan.leftover == [B]
    assert plan.uninvited == []
    assert plan.failures({A: RW, B: RW}) == ["/b to h is still exported"]


def test_what_left_the_list_but_stands_in_another_file_stays() -> None:
    plan = make_plan({A: RW}, [A, B], {B: RW}, {A: RW, B: RW})
    assert plan.table_is_right
    assert plan.failures({A: RW}) == ["/b to h, which is not in the list, was withdrawn"]


def test_a_client_added_by_hand_to_a_listed_directory_is_withdrawn() -> None:
    stranger = Key("/a", "*")
    plan = make_plan({A: RW}, [A], {}, {A: RW, stranger: RW})
    assert plan.leftover == plan.uninvited == [stranger]


def test_exports_made_by_hand_elsewhere_stay() -> None:
    """Cluster managers export with `exportfs -o`, and no file tells of it."""
    plan = make_plan({A: RW}, [A], {}, {C: RW})
    assert plan.by_hand == [C]
    assert plan.after == {A: RW, C: RW}
    assert plan.failures({A: RW}) == ["/c to h, which is not in the list, was withdrawn"]


def test_foreign_files_may_become_effective_but_nothing_else_of_others_may_change() -> None:
    plan = make_plan({A: RW}, [], {B: RW}, {B: RO})
    assert plan.pending == [B]
    assert plan.failures({A: RW, B: RW}) == []
    assert plan.failures({A: RW, B: RO}) == []
    assert plan.failures({A: RW}) == ["/b to h, which is not in the list, was withdrawn"]
    assert plan.failures({A: RW, B: RO, C: RW}) == ["/c to h, which is not in the list, was changed"]


keys = st.builds(Key, st.sampled_from(["/a", "/b", "/c"]), st.sampled_from(["h", "i", "*"]))
tables = st.dictionaries(keys, st.sampled_from([RW, RO]), max_size=6)


@given(tables, st.sets(keys), tables, tables)
def test_the_predicted_table_is_never_a_failure_and_a_second_run_finds_nothing(
    wanted: dict[Key, Meaning], past: set[Key], foreign: dict[Key, Meaning], before: dict[Key, Meaning]
) -> None:
    foreign = {key: meaning for key, meaning in foreign.items() if key not in wanted}  # clashes are refused before
    plan = make_plan(wanted, past, foreign, before)
    after = plan.after
    assert plan.failures(after) == []
    again = make_plan(wanted, wanted, foreign, after)
    assert again.table_is_right
    for key in before:
        if key not in after:
            assert key in plan.ours


def test_names_that_share_an_address_are_one_client() -> None:
    clients = Clients({"alpha": ["10.0.0.1"], "alpha.example.com": ["10.0.0.1"], "beta": ["10.0.0.2"]})
    assert clients.key("alpha") == clients.key("ALPHA.example.com") == clients.key("10.0.0.1")
    assert (clients.key("Beta"), clients.key("10.0.0.2"), clients.key("alpha")) == ("beta", "beta", "alpha")
    assert clients.key("10.0.0.0/8") == "10.0.0.0/8"


def test_names_to_resolve_are_host_names_only() -> None:
    hosts = ["h", "H", "10.0.0.1", "10.0.0.0/8", "@group", "*.example.com", "2001:db8::1", "*", ""]
    assert _export_table.host_names(hosts) == ["h"]


def test_links_and_aliases_lead_to_the_same_key() -> None:
    rules = Rules(Clients({"a": ["10.0.0.1"], "b": ["10.0.0.1"]}), {"/link": "/real"})
    assert rules.key("/link", "a") == rules.key("/real", "b")


def test_the_first_entry_of_a_key_counts_as_for_exportfs() -> None:
    rules = Rules(Clients({}), {})
    entries = _exports.parse("/a h(rw)\n/a h(ro)\n").entries
    assert rules.table(entries) == {Key("/a", "h"): RW}


def test_a_mistake_in_a_foreign_file_is_told_with_what_it_costs() -> None:
    file = _export_table.read_foreign("/etc/exports", "/a h(rww)\n/b h(rw)\n", _export_options.NEWEST)
    assert file.warnings() == [
        '/etc/exports:1: "rww" is not an option of exports(5); did you mean "rw"?',
        "/etc/exports: exportfs reads no further, these exports are lost: /a to h, /b to h",
    ]


def clashes(listed: list[dict[str, Any]], foreign: str, **links: str) -> list[str]:
    exports, wrong = _export_list.read_list(listed, allow_world=True, dialect=_export_options.NEWEST)
    assert wrong == []
    file = _export_table.read_foreign("/etc/exports", foreign, _export_options.NEWEST)
    rules = Rules(Clients({}), {f"/{name}": path for name, path in links.items()})
    return _export_table.clashes(exports, [file], rules)


def export(path: str, *clients: str) -> dict[str, Any]:
    return {"path": path, "clients": [dict(zip(("host", "options"), one.split(" "), strict=True)) for one in clients]}


def test_what_exportfs_would_ignore_or_mix_up_is_named_with_its_place() -> None:
    assert clashes([export("/a", "h rw"), export("/b", "h rw", "i ro")], "/a i(rw)\n/c h(rw)\n") == []
    assert clashes([export("/a", "h rw", "i ro")], "/c h(rw)\n/a i(rw)\n") == [
        'exports[0].clients[1].host: /etc/exports:2 exports /a to "i" too'
    ]
    assert clashes([export("/a", "h rw"), export("/link", "h ro")], "", link="/a") == [
        'exports[1].clients[0].host: /a has the client "h" already (exports[0].clients[0])'
    ]


def test_an_fsid_has_one_directory() -> None:
    foreign = "/c h(rw,fsid=7)\n/d i(ro,fsid=8)\n"
    assert clashes([export("/c", "i rw,fsid=7")], foreign) == []
    assert clashes([export("/real", "i rw,fsid=7")], "/link h(rw,fsid=7)\n", link="/real") == []
    assert clashes([export("/a", "h rw,fsid=8"), export("/b", "h rw,fsid=9")], foreign) == [
        "exports[0].clients[0].options: fsid=8 belongs to /d already (/etc/exports:2)"
    ]


def test_a_foreign_file_is_read_by_what_this_version_knows() -> None:
    old = dataclasses.replace(_export_options.NEWEST, version=(2, 6, 2))
    file = _export_table.read_foreign("/etc/exports", "/a h(rw,xprtsec=tls)\n/b\n/c (rw)\n", old)
    assert "needs nfs-utils 2.6.3" in file.warnings()[0]
    assert file.warnings()[-1].endswith("these exports are lost: /a to h, /b to *, /c to *")


def test_a_table_is_shown_an_export_a_line() -> None:
    told = _export_table.show({B: RO, A: RW})
    assert told == f"/a h({','.join(RW.options())})\n/b h({','.join(RO.options())})\n"
    assert "rw,sync" in told


def test_a_name_of_dots_is_nothing_to_resolve() -> None:
    assert _export_table.host_names(["...", "X", "h."]) == ["h.", "x"]
