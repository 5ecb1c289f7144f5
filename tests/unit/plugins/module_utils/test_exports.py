# SPDX-License-Identifier: GPL-3.0-or-later
"""What exportfs makes of an exports file, measured with nfs-utils 2.6.2 and 2.8.3: whoever misjudges that takes
clients down or lets strangers in."""

from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_clients, _exports
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import parse
from ansible_collections.clusterkit.storage.tests.export_options import meaning, options_lists
from hypothesis import example, given
from hypothesis import strategies as st

NINE = [f"/nfs/k8s/d{number} 192.168.77.0/24(rw,sync,no_root_squash)" for number in range(9)]


def seen(text: str) -> list[tuple[str, str]]:
    return [(entry.path, entry.host) for entry in parse(text).effective]


# --- words, blanks, comments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a h(rw)\n", [("/a", "h")]),
        ("/a h(rw)", [("/a", "h")]),
        ("# only\n\n   \n/a h(rw) # behind\n", [("/a", "h")]),
        ("# a comment does not go on \\\n/a h(rw)\n", [("/a", "h")]),
        ("/a h(rw) \\\n\t i(ro)\n/b h(rw)\n", [("/a", "h"), ("/a", "i"), ("/b", "h")]),
        ("/a\\\nh(rw)\n", [("/a", "h")]),
        ("/a h(rw) \\\n Xi(ro)\n", [("/a", "h"), ("/a", "Xi")]),
        ("/a h(rw) \\\nXi(ro)\n", [("/a", "h"), ("/a", "Xi")]),
        ('"/a b" h(rw)\n', [("/a b", "h")]),
        ('/a" "b "h(rw)"\n', [("/a b", "h")]),
        ("/a\\040b h(rw)\n", [("/a b", "h")]),
        ("/\\303\\274 h(rw)\n", [("/ü", "h")]),
        ("/ü h(rw)\n", [("/ü", "h")]),
        ("/a\\777 h(rw)\n", [("/a\\777", "h")]),
        ("/a\\400 h(rw)\n", [("/a\\400", "h")]),
        ("\\057a h(rw)\n", [("/a", "h")]),
        ("/a\\000b h(rw)\n", [("/a", "h")]),
        ('"/a\\\nb" h(rw)\n', [("/a b", "h")]),
        ("/a -rw Xh(ro)\n", [("/a", "Xh")]),
        ("/a#b h(rw)\n", [("/a#b", "h")]),
        ("/a -rw h i -ro j\n", [("/a", "h"), ("/a", "i"), ("/a", "j")]),
        (
            "/a 2001:db8::/32(rw) @group(ro) *.example.com(ro) gss/krb5(rw)\n",
            [("/a", "2001:db8::/32"), ("/a", "@group"), ("/a", "*.example.com"), ("/a", "gss/krb5")],
        ),
    ],
)
def test_words_of_a_file(text: str, expected: list[tuple[str, str]]) -> None:
    assert seen(text) == expected
    assert parse(text).problems == ()


def test_escapes_are_read_again_after_what_they_yield() -> None:
    assert seen("/a\\134040b h(rw)\n") == [("/a b", "h")]


def test_a_path_begins_with_its_first_letter() -> None:
    found = parse("X/a h(rw)\n")
    assert seen("X/a h(rw)\n") == [("X/a", "h")]
    assert [problem.text for problem in found.problems] == ['"X/a" is not an absolute path']


def test_words_are_written_with_as_few_escapes_as_can_be() -> None:
    assert _exports.escape('/aX b\\X"#ü') == "/aX\\040b\\134X\\042\\043ü"
    assert _exports.escape("\\17") == "\\134\\061\\067"  # else 17 would be read as the end of one more escape
    assert _exports.escape("\\1X1") == "\\134\\061X1"
    assert _exports.format_export("/a b", [("h", ["rw", "sync"]), ("", [])]) == "/a\\040b h(rw,sync) *()"


def test_default_options_hold_for_the_clients_behind_them_and_add_up() -> None:
    found = parse("/a -rw h -insecure i(ro)\n").entries
    assert [entry.meaning for entry in found] == [meaning("rw"), meaning("rw,insecure,ro")]


@pytest.mark.parametrize(
    ("defaults", "first", "second"),
    [("rw", "insecure", "ro"), ("sec=sys", "sec=sys,rw", "sec=sys"), ("xprtsec=tls", "xprtsec=mtls", "xprtsec=tls")],
)
def test_what_a_client_adds_does_not_reach_the_next(defaults: str, first: str, second: str) -> None:
    found = parse(f"/a -{defaults} h({first}) i({second})\n").entries
    assert [entry.meaning for entry in found] == [meaning(f"{defaults},{first}"), meaning(f"{defaults},{second}")]


@pytest.mark.parametrize(
    "option", ["mountpoint=/ü", "refer=/ü@h", "fsid=12345678ü1234ü1234ü1234ü123456789abc", "mountpoint=/ü,refer=/ü@h"]
)
def test_values_may_hold_any_letter(option: str) -> None:
    [entry] = parse(f"/a h({option})\n").entries
    assert set(option.split(",")) <= set(entry.meaning.options())


def test_lines_are_counted_over_continuations_and_in_quotes() -> None:
    found = parse('"/a\nb" h(rww)\n')
    assert [problem.line for problem in found.problems] == [2]
    found = parse("/a -rw h(rww)\n/b -ro -x(rw)\n/c (ro\n")
    assert [problem.line for problem in found.problems] == [1, 2, 3]
    assert [(entry.path, entry.host) for entry in found.lost] == [("/a", "h"), ("/b", "-x"), ("/c", "*")]
    assert found.lost[-1].meaning == Meaning(), "nothing of a list without an end is taken"
    found = parse("\n\n/a h(rw) \\\n  \\\n i(rww)\n/b j (rw)\n/c (rw)\n")
    assert [problem.line for problem in found.problems] == [5, 6, 7]


def test_flavors_among_default_options_keep_their_access() -> None:
    """`-sec=krb5,rw h(ro)` is read-write: what a client adds does not reach flavors named before."""
    assert parse("/a -sec=krb5,rw h(ro)\n").entries[0].meaning == meaning("sec=krb5,rw")


# --- mistakes, and what they cost --------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 4, 8])
def test_a_typo_costs_its_export_and_all_behind_it(position: int) -> None:
    lines = list(NINE)
    lines[position] = lines[position].replace("rw,", "rww,")
    found = parse("\n".join(["# two", "# comments", *lines, ""]))
    assert len(found.effective) == position
    assert len(found.lost) == 9 - position
    [problem] = found.problems
    assert problem.stops
    assert problem.line == position + 3  # exportfs itself does not count comments, and points elsewhere
    assert problem.text == '"rww" is not an option of exports(5); did you mean "rw"?'


def test_a_second_mistake_is_named_too_but_is_not_what_stops_the_reading() -> None:
    found = parse("/a h(rww)\n/b h(roo)\n")
    assert [(problem.line, problem.stops) for problem in found.problems] == [(1, True), (2, False)]


def test_space_before_the_bracket_exports_to_the_world() -> None:
    found = parse("/a 192.168.77.0/24 (rw)\n")
    assert [(entry.host, entry.meaning) for entry in found.effective] == [
        ("192.168.77.0/24", Meaning()),
        ("*", meaning("rw")),
    ]
    assert [problem.text for problem in found.problems] == [
        'space between "192.168.77.0/24" and "(rw)": exports /a to the whole world with "(rw)", '
        'to "192.168.77.0/24" with default options'
    ]


def test_options_behind_a_client_with_options_are_those_of_the_world() -> None:
    found = parse("/a h(rw) (ro)\n")
    assert [(entry.host, entry.meaning) for entry in found.effective] == [("h", meaning("rw")), ("*", meaning("ro"))]
    assert [problem.text for problem in found.problems] == ['no client before "(ro)": exports /a to the whole world']


@pytest.mark.parametrize("text", ["/a\n", "/a (rw)\n", "/a -rw\n", "/a h(rw) -ro\n", "/a *(ro) # fine\n"])
def test_a_path_without_client_is_exported_to_the_world(text: str) -> None:
    found = parse(text)
    assert any(_export_clients.matches_everybody(entry.host) for entry in found.effective)
    assert bool(found.problems) == ("fine" not in text)


def test_a_client_that_looks_like_options_is_a_problem() -> None:
    found = parse("/a -ro -x(rw) h(rw)\n")
    assert [entry.host for entry in found.effective] == ["-x", "h"]
    assert [problem.text for problem in found.problems] == [
        'client "-x" of /a starts with "-": exportfs can take it for options'
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a h(rw\n", "bad option list"),
        ("/a h(rw)x\n", "bad option list"),
        ("/a h(rw,,sync)\n", "empty option"),
        ("/a h(fsid=x)\n", "neither a number"),
        ("/a h(anonuid=)\n", "not a number"),
        ("/a h(sec=krb6)\n", 'did you mean "krb5"'),
        ("/a h(xprtsec=tlss)\n", 'did you mean "tls"'),
        ("/a h(reexport=auto)\n", "reexport="),
        ("/a h(rw=1)\n", "rw takes no value"),
        ("/a h(fsid)\n", "fsid=..."),
        ("/a h(squash_uids=x)\n", "range of numbers"),
        ("\r\n/a h(rw)\n", "carriage return"),
        (f"/{'a' * 1024} h(rw)\n", "longer than 1024"),
        (f"/a {'h' * 600}(rw)\n", "longer than 511"),
    ],
)
def test_what_ends_the_reading_of_a_file(text: str, words: str) -> None:
    found = parse(text + "/last h(rw)\n")
    assert found.effective == []
    assert words in found.problems[0].text
    assert found.problems[0].stops
    assert found.lost[-1].path == "/last"


@pytest.mark.parametrize("escaped", ["", "\\040"])
def test_words_may_be_as_long_as_the_buffers_of_nfs_utils(escaped: str) -> None:
    blanks = len(escaped) // 4
    path = "/" + escaped + "p" * (_exports.MAX_PATH - 1 - blanks)
    client = "h" + escaped + "h" * (_exports.MAX_CLIENT - 5 - blanks) + "(rw)"
    assert not parse(f"{path} {client}\n").lost
    for text, words in (
        (f"{path}p {client}\n", f"the path is longer than {_exports.MAX_PATH} bytes"),
        (f"{path} h{client}\n", f"a client with its options is longer than {_exports.MAX_CLIENT} bytes"),
    ):
        assert [(problem.line, problem.text) for problem in parse(f"\n{text}").problems] == [(2, words)]


@pytest.mark.parametrize(
    "client",
    ["10.0.0.0/33", "10.0.0/8", "10.300.0.0/16", "10.0.0.0/x", "2001:db8::/129", "a/b", "10.0.0.0/255.0.0.x"],
)
def test_a_bad_network_drops_that_client_only(client: str) -> None:
    found = parse(f"/a {client}(rw) h(rw)\n")
    assert [entry.host for entry in found.effective] == ["h"]
    assert "is dropped" in found.problems[0].text
    assert not found.problems[0].stops


def test_a_trailing_comma_is_taken() -> None:
    assert parse("/a h(rw,)\n").problems == ()


def test_a_line_of_etab_means_what_the_options_mean_that_made_it() -> None:
    table = (
        "/nfs/k8s/a\\040b\t192.168.77.0/24(rw,sync,wdelay,hide,nocrossmnt,insecure,no_root_squash,no_all_squash,"
        "no_subtree_check,secure_locks,acl,no_pnfs,anonuid=-2,anongid=65534,sec=sys,rw,insecure,no_root_squash,"
        "no_all_squash)\n"
    )
    [entry] = parse(table).entries
    assert (entry.path, entry.host) == ("/nfs/k8s/a b", "192.168.77.0/24")
    assert entry.meaning == meaning("rw,no_root_squash,insecure,anonuid=4294967294")


# --- properties --------------------------------------------------------------------------------------------

WORDS = ["/a", "/a b", "h", "*", "10.0.0.0/8", "(rw)", "(", ")", "-ro", ",", "#", '"', "\\", "\\040", "\\\n", " ", "\n",
         "sec=", "sys", "krb5", "fsid=", "0", "rw", "\r", "\0", "\v", "mp=", "refer=/a@b", "ü", "\udcff"]  # fmt: skip
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=30).map("".join))


@given(texts)
@example("\\")
@example('"')
@example("/a \\\n")
@example("/a " + "(" * 600)
def test_no_file_makes_the_reader_fail(text: str) -> None:
    found = parse(text)
    lines = text.count("\n") + 1
    assert all(1 <= entry.line <= lines for entry in found.entries)
    assert all(1 <= problem.line <= lines for problem in found.problems)
    assert bool(found.lost) <= any(problem.stops for problem in found.problems)


@given(st.binary())
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    parse(data.decode("utf-8", "surrogateescape"))


characters = st.characters(min_codepoint=1, max_codepoint=0x2FF, exclude_categories=["Cs"])
paths = st.text(characters, min_size=1, max_size=60).map(lambda text: "/" + text)
hosts = st.sampled_from(
    ["h", "h.example.com", "10.0.0.1", "10.0.0.0/8", "2001:db8::1", "2001:db8::/32", "@group", "*.example.com", "*"]
)


@given(paths, st.lists(st.tuples(hosts, options_lists.filter(bool)), min_size=1, max_size=4))
@example("/a\\040b", [("h", ["rw"])])
@example('/"#\n', [("h", ["rw"])])
def test_what_is_written_is_read_back(path: str, clients: list[tuple[str, list[str]]]) -> None:
    found = parse(_exports.format_export(path, clients) + "\n")
    assert found.problems == ()
    assert [(entry.path, entry.host, entry.meaning) for entry in found.entries] == [
        (path, host, meaning(",".join(options))) for host, options in clients
    ]


@given(st.lists(st.sampled_from([*NINE, "/bad h(rww)", "/bad h(rw", "# comment", ""]), max_size=8))
def test_what_stands_before_a_mistake_is_not_touched_by_it(lines: list[str]) -> None:
    found = parse("\n".join(lines))
    first_bad = next((number for number, line in enumerate(lines) if line.startswith("/bad")), len(lines))
    assert found.effective == parse("\n".join(lines[:first_bad])).effective
    assert len(found.lost) == len([line for line in lines[first_bad:] if line.startswith("/")])
