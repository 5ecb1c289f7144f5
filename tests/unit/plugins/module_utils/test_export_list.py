# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is wrong with a list of exports is said at once, and nothing wrong gets into a file."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_list, _export_options, _exports
from hypothesis import assume, given
from hypothesis import strategies as st


def export(path: str = "/nfs/a", *clients: tuple[str, list[str]], comment: str = "") -> dict[str, Any]:
    listed = clients or (("192.168.77.0/24", ["rw"]),)
    return {
        "path": path,
        "clients": [{"host": host, "options": options} for host, options in listed],
        "comment": comment,
    }


def problems(*items: dict[str, Any], allow_world: bool = False) -> list[str]:
    return _export_list.read_list(items, allow_world=allow_world, dialect=_export_options.NEWEST)[1]


def written(*items: dict[str, Any]) -> str:
    exports, wrong = _export_list.read_list(items, allow_world=True, dialect=_export_options.NEWEST)
    assert wrong == []
    return _export_list.content(exports)


def test_all_problems_are_reported_at_once_each_with_its_place() -> None:
    assert problems(
        export("/nfs/a", ("192.168.77.0/24", ["rww"]), ("*", ["rw"])),
        export("nfs/b"),
        {"path": "/nfs/c", "clients": [], "comment": ""},
    ) == [
        'exports[0].clients[0].options: "rww" is not an option of exports(5); did you mean "rw"?',
        'exports[0].clients[1].host: "*" lets in everybody; this needs allow_world: true '
        "(role: nfs_server_allow_world: true)",
        'exports[1].path: "nfs/b" is not an absolute path',
        "exports[2].clients: names nobody; an export needs a client",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nfs", "not an absolute path"),
        ("", "not an absolute path"),
        ("/nfs/../etc", 'contains ".."'),
        ("/nfs/", 'write "/nfs"'),
        ("/nfs//a", 'write "/nfs/a"'),
        ("//nfs", 'write "/nfs"'),
        ("/nfs/./a", 'write "/nfs/a"'),
        ("/nfs\na", "control character"),
        ("/nfs\\040a", "backslash"),
        ("/" + "a" * 1024, "longer than 1024"),
    ],
)
def test_paths_that_are_refused(path: str, words: str) -> None:
    [problem] = problems(export(path))
    assert problem.startswith("exports[0].path: ")
    assert words in problem


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("10.0.0.0/33", "prefix length"),
        ("10.0.0.0/", "everybody"),
        ("10.0.0.0/255.0.255.0", "holes"),
        ("10.0.0.0/+8", "prefix length"),
        ("10.0.0.256", "not an IP address"),
        ("10.4", "not an IP address"),
        ("192.168.77.*", "write a network"),
        ("[2001:db8::1]", "without brackets"),
        ("host (rw)", "options have a key of their own"),
        ("host(rw)", "options have a key of their own"),
        ("a b", "not one client"),
        ("a,b", "not one client"),
        ("-rw", "neither a host name"),
        ("hö.example.com", "neither a host name"),
        ("a..b", "neither a host name"),
        ("host[", "not a wildcard"),
        ("@", "not a netgroup"),
        ("gss/krb5", "sec=krb5"),
        ("", "everybody"),
        ("0.0.0.0/0", "everybody"),
        ("::/0", "everybody"),
    ],
)
def test_clients_that_are_refused(host: str, words: str) -> None:
    [problem] = problems(export("/a", (host, ["rw"])))
    assert problem.startswith("exports[0].clients[0].host: ")
    assert words in problem


@pytest.mark.parametrize(
    "host",
    ["h", "h.example.com", "h_1", "10.0.0.1", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "2001:db8::1", "2001:db8::/32",
     "@group", "*.example.com", "host[0-9].example.com", "al?ha"],
)  # fmt: skip
def test_clients_that_are_taken(host: str) -> None:
    assert problems(export("/a", (host, ["rw"]))) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["rww"], 'did you mean "rw"'),
        (["no_root_sqash"], 'did you mean "no_root_squash"'),
        (["rw", ""], "empty option"),
        (["rw=yes"], "takes no value"),
        (["fsid"], "needs a value"),
        (["fsid=010"], "octal"),
        (["fsid=4294967296"], "0 to 4294967295"),
        (["fsid=-1"], "neither a number"),
        (["anonuid=-1"], "not an id"),
        (["anonuid=4294967295"], "not an id"),
        (["anonuid=nobody"], "not a number"),
        (["mountpoint=srv"], "not an absolute path"),
        (["mp=/s rv"], "blank"),
        (["refer=/a"], "refer=/path@host"),
        (["refer=a@h"], "refer=/path@host"),
        (["squash_uids=5"], "obsolete"),
        (["rw", "ro"], '"ro" contradicts "rw"'),
        (["rw,ro"], '"ro" contradicts "rw"'),
        (["root_squash", "no_root_squash"], "contradicts"),
        (["sync", "async"], "contradicts"),
        (["secure_locks", "no_auth_nlm"], "contradicts"),
        (["anonuid=1", "anonuid=2"], "contradicts"),
        (["mp=/a", "mountpoint=/b"], "contradicts"),
        (["refer=/a@b", "replicas=/a@b"], "contradicts"),
        (["fsid=1", "fsid=12345678-1234-1234-1234-123456789abc"], "contradicts"),
        (["sec=krb5", "rw", "ro"], "contradicts"),
    ],
)
def test_options_that_are_refused(options: list[str], words: str) -> None:
    [problem] = problems(export("/a", ("h", options)))
    assert problem.startswith("exports[0].clients[0].options: ")
    assert words in problem


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["rw", "rw"],
        ["rw,sync", "no_root_squash"],
        ["secure_locks", "auth_nlm"],
        ["fsid=0", "fsid=root"],
        ["sec=sys", "ro", "sec=krb5", "rw"],
        ["rw", "sec=krb5", "ro"],
        ["fsid=12345678-1234-1234-1234-123456789abc"],
        ["anonuid=-2"],
        ["refer=/a@h+i:/b@j"],
        ["mountpoint", "crossmnt", "xprtsec=mtls"],
    ],
)
def test_options_that_are_taken(options: list[str]) -> None:
    assert problems(export("/a", ("h", options))) == []


def test_one_fsid_cannot_mean_two_directories() -> None:
    uuid = "12345678-1234-1234-1234-123456789abc"
    assert problems(export("/a", ("h", ["fsid=5"])), export("/b", ("h", ["fsid=5"]))) == [
        "exports[1].clients[0].options: fsid=5 belongs to /a already (exports[0].clients[0])"
    ]
    assert problems(export("/a", ("h", [f"fsid={uuid}"])), export("/b", ("h", [f"fsid={uuid.replace('-', '')}"])))
    assert problems(export("/a", ("h", ["fsid=5"]), ("i", ["fsid=5"]))) == []


def test_a_client_that_does_not_fit_into_the_buffer_of_exportfs_is_refused() -> None:
    long = ["refer=" + ":".join(f"/path/number/{number}@host" for number in range(40))]
    [problem] = problems(export("/a", ("h", long)))
    assert "longer than 511" in problem


def test_the_file_reads_like_written_by_hand() -> None:
    assert written(
        export("/nfs/a", ("192.168.77.0/24", ["rw", "no_root_squash"]), ("h", []), comment="volumes\nof the cluster"),
        export("/nfs/b c", ("*", ["ro", "subtree_check"])),
    ) == (
        "# Managed by clusterkit.storage.nfs_exports: changes made here will be overwritten.\n"
        "\n"
        "# volumes\n"
        "# of the cluster\n"
        "/nfs/a 192.168.77.0/24(rw,no_root_squash,no_subtree_check) h(ro,no_subtree_check)\n"
        "/nfs/b\\040c *(ro,subtree_check)\n"
    )


def test_own_files_are_recognised_and_others_are_not() -> None:
    assert _export_list.is_ours(written())
    assert not _export_list.is_ours("/a h(rw)\n")
    assert not _export_list.is_ours("")


comments = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
characters = st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\\\x7f/")
items = st.builds(
    export,
    st.text(characters, min_size=1).map("/{}".format),
    st.tuples(
        st.sampled_from(["h", "10.0.0.0/8", "2001:db8::1", "@g", "*.example.com"]),
        st.lists(st.sampled_from(["rw", "sync", "no_root_squash", "fsid=3", "sec=krb5:sys", "anonuid=7"]), unique=True),
    ),
    comment=comments,
)  # fmt: skip


@given(st.lists(items, max_size=5))
def test_whatever_is_accepted_is_written_as_it_is_meant(listed: list[dict[str, Any]]) -> None:
    exports, wrong = _export_list.read_list(listed, allow_world=False, dialect=_export_options.NEWEST)
    assume(not wrong)
    read = _exports.parse(_export_list.content(exports))
    assert read.problems == ()
    assert [(entry.path, entry.host, entry.meaning) for entry in read.entries] == [
        (export.path, client.host, client.meaning) for export in exports for client in export.clients
    ]


@given(st.text(), st.text(), st.lists(st.text()))
def test_no_input_makes_the_check_fail(path: str, host: str, options: list[str]) -> None:
    problems(export(path, (host, options)), allow_world=True)


def test_options_of_an_export_hold_for_its_clients_and_those_of_a_client_win() -> None:
    item = export("/nfs/a", ("10.0.0.1", []), ("10.0.0.2", ["ro", "no_subtree_check"]))
    item["options"] = ["rw,crossmnt", "fsid=7"]
    assert written(item).splitlines()[1] == (
        "/nfs/a 10.0.0.1(rw,crossmnt,fsid=7,no_subtree_check) 10.0.0.2(crossmnt,fsid=7,ro,no_subtree_check)"
    )


def test_problems_of_the_options_of_an_export_are_said_once() -> None:
    item = export("/nfs/a", ("10.0.0.1", ["rw"]), ("10.0.0.2", ["rw"]))
    assert problems({**item, "options": ["crosmnt"]}) == [
        'exports[0].options: "crosmnt" is not an option of exports(5); did you mean "crossmnt"?'
    ]
    assert problems({**item, "options": ["ro", "rw"]}) == ['exports[0].options: "rw" contradicts "ro"']
    fsid_late = {**export("/nfs/a", ("10.0.0.1", ["fsid=1"])), "options": ["reexport=auto-fsidnum"]}
    [problem] = problems(fsid_late)
    assert "fsid= has to stand before reexport=" in problem and "together with exports[0].options" in problem


def test_what_a_security_flavor_stands_before_stays_in_its_place() -> None:
    item = {**export("/nfs/a", ("10.0.0.1", ["ro"])), "options": ["sec=krb5", "rw", "sec=sys"]}
    assert "(sec=krb5,rw,sec=sys,ro," in written(item)


words = st.sampled_from(["rw", "ro", "sync", "async", "crossmnt", "insecure", "root_squash", "no_root_squash"])


@given(st.lists(words, max_size=4, unique=True), st.lists(words, max_size=4, unique=True))
def test_options_of_both_mean_what_they_mean_one_after_the_other(common: list[str], own: list[str]) -> None:
    item = {**export("/nfs/a", ("10.0.0.1", own)), "options": common}
    assume(not problems(item))
    expected, _problem = _export_options.read_options(",".join([*common, *own]))
    assert _export_list.meaning(item, item["clients"][0]) == expected


def test_exports_outside_the_pseudo_root_are_named() -> None:
    items = [export("/srv/nfs4", ("10.0.0.1", ["fsid=root"])), export("/srv/nfs4/a"), export("/srv/b")]
    exports, _problems = _export_list.read_list(items, allow_world=False, dialect=_export_options.NEWEST)
    [warning] = _export_list.warnings(exports)
    assert warning.startswith("exports[2]: /srv/b does not lie below the pseudo-root /srv/nfs4")
    assert _export_list.warnings(exports[2:]) == []
