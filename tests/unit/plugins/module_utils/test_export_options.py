# SPDX-License-Identifier: GPL-3.0-or-later
"""What options mean, measured with nfs-utils 2.6.2 and 2.8.3: two that are equal here are equal for a client."""

from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_options
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning
from ansible_collections.clusterkit.storage.tests.export_options import meaning, options_lists
from hypothesis import given


def problem_of(options: str, dialect: Dialect = _export_options.NEWEST) -> str | None:
    return _export_options.read_options(options, dialect)[1]


def test_defaults_are_those_of_the_manual() -> None:
    assert Meaning().options() == [
        "ro", "sync", "wdelay", "hide", "nocrossmnt", "secure", "root_squash", "no_all_squash",
        "no_subtree_check", "secure_locks", "acl", "no_pnfs", "anonuid=65534", "anongid=65534", "sec=sys",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "ro,sync,secure,root_squash,no_subtree_check,sec=sys"),
        ("secure_locks", "auth_nlm"),
        ("mp=/srv", "mountpoint=/srv"),
        ("fsid=root", "fsid=0"),
        ("fsid=0x10", "fsid=16"),
        ("fsid=010", "fsid=8"),
        ("sec=unix:null", "sec=sys:none"),
        ("sec=sys,rw,sec=krb5,rw", "rw,sec=sys:krb5"),
        ("xprtsec=none:tls:mtls", ""),
        ("rw,ro", "ro"),
        (" rw, \tinsecure", "rw,insecure"),
        ("anonuid=1, \trw", "anonuid=1,rw"),
    ],
)
def test_different_words_for_the_same(one: str, other: str) -> None:
    assert meaning(one) == meaning(other)
    assert _export_options.differences(meaning(one), meaning(other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rw", "ro"),
        ("insecure", "secure"),
        ("sec=sys:krb5", "sec=krb5:sys"),
        ("sec=sys,rw,sec=krb5,ro", "sec=sys,ro,sec=krb5,rw"),
        ("fsid=1", "fsid=2"),
        ("fsid=1", ""),
        ("mountpoint", ""),
        ("refer=/a@b", "replicas=/a@b"),
        ("xprtsec=mtls", "xprtsec=tls"),
        ("nordirplus", ""),
    ],
)
def test_differences_are_named(one: str, other: str) -> None:
    assert meaning(one) != meaning(other)
    assert _export_options.differences(meaning(one), meaning(other))


def test_difference_of_one_word_names_that_word() -> None:
    assert _export_options.differences(meaning("rw"), meaning("ro")) == ["rw wanted", "ro found"]


def test_words_of_one_side_alone_are_named_alone() -> None:
    assert _export_options.differences(meaning("nordirplus"), meaning("")) == ["nordirplus wanted"]
    assert _export_options.differences(meaning(""), meaning("nordirplus")) == ["nordirplus found"]


def test_the_same_words_in_another_order_are_named_as_a_whole() -> None:
    one, other = meaning("sec=sys,rw,sec=krb5,ro"), meaning("sec=krb5,ro,sec=sys,rw")
    assert _export_options.differences(one, other) == [
        f"{','.join(one.options())} wanted",
        f"{','.join(other.options())} found",
    ]


UUID = "12345678-1234-1234-1234-123456789abc"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("no_wdelay", ["no_wdelay"]),
        ("anonuid=7", ["anonuid=7", "anongid=65534"]),
        ("anongid=7", ["anonuid=65534", "anongid=7"]),
        ("anonuid=-2", ["anonuid=4294967294"]),
        # strtol and strtoul end at the largest number; what is kept of it are 32 bits.
        ("anonuid=9223372036854775807", ["anonuid=4294967295"]),
        ("anonuid=9223372036854775808", ["anonuid=4294967295"]),
        ("anonuid=-9223372036854775809", ["anonuid=0"]),
        ("fsid=18446744073709551615", ["fsid=4294967295"]),
        ("fsid=18446744073709551616", ["fsid=4294967295"]),
        ("fsid=18446744073709551617", ["fsid=4294967295"]),
        ("fsid=-1", ["fsid=4294967295"]),
        ("fsid=+5", ["fsid=5"]),
        ("fsid=0x1f", ["fsid=31"]),
        ("fsid=0X1F", ["fsid=31"]),
        ("fsid=017", ["fsid=15"]),
        ("fsid=9", ["fsid=9"]),
        ("fsid=root", ["fsid=0"]),
        (f"fsid={UUID}", [f"fsid={UUID}"]),
        (f"fsid={UUID.upper()}", [f"fsid={UUID.upper()}"]),
        # The number at its start comes to light by reexport=.
        (f"fsid={UUID},reexport=none", ["fsid=12345678", f"fsid={UUID}"]),
        (f"fsid=a{UUID[1:]},reexport=none", [f"fsid=a{UUID[1:]}"]),
        ("fsid=7,reexport=predefined-fsidnum", ["fsid=7", "reexport=predefined-fsidnum"]),
        ("reexport=auto-fsidnum", ["reexport=auto-fsidnum"]),
        ("mp", ["mountpoint"]),
        ("mp=/srv", ["mountpoint=/srv"]),
        ("refer=/a@b", ["refer=/a@b"]),
        ("squash_uids=0-99,squash_gids=5", ["squash_uids=0-99", "squash_gids=5"]),
        ("sec=krb5:sys", ["sec=krb5:sys"]),
        ("xprtsec=tls:mtls", ["xprtsec=mtls:tls"]),
    ],
)
def test_values_as_etab_has_them(options: str, words: list[str]) -> None:
    names = {word.partition("=")[0] for word in words}
    assert [word for word in meaning(options).options() if word.partition("=")[0] in names] == words


@pytest.mark.parametrize("word", sorted(_export_options.FLAG_OPTIONS))
def test_every_flag_is_spelled_as_it_is_written(word: str) -> None:
    synonyms = {"no_auth_nlm": "insecure_locks", "auth_nlm": "secure_locks"}
    flag, value = _export_options.FLAG_OPTIONS[word]
    opposites = [other for other, meant in _export_options.FLAG_OPTIONS.items() if meant == (flag, not value)]
    for before in ["", *opposites]:
        words = meaning(f"{before},{word}" if before else word).options()
        assert synonyms.get(word, word) in words
        assert not {*opposites} & {*words}


@pytest.mark.parametrize(
    ("options", "access"),
    [
        # A flavor begins with what holds for the export where it is named.
        ("sec=sys,rw,sec=krb5,insecure", {"sys": "rw,secure", "krb5": "rw,insecure"}),
        ("sec=sys:krb5,rw", {"sys": "rw,secure", "krb5": "rw,secure"}),
        ("sec=sys,ro,sec=krb5,rw,sec=sys,insecure", {"sys": "ro,insecure", "krb5": "rw,secure"}),
    ],
)
def test_access_by_security_flavor(options: str, access: dict[str, str]) -> None:
    assert {
        one.name: f"{'ro' if 'ro' in one.flags else 'rw'},{'insecure' if 'insecure' in one.flags else 'secure'}"
        for one in meaning(options).flavors
    } == access


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("rw,,sync", "there is an empty option: two commas, or a comma at the start"),
        ("rw=1=2", '"rw=1=2": rw takes no value'),
        ("fsid", '"fsid" needs a value: fsid=...'),
        ("rww", '"rww" is not an option of exports(5); did you mean "rw"?'),
        ("anonui=1000000000", '"anonui=1000000000" is not an option of exports(5); did you mean "anonuid="?'),
        ("quite=other", '"quite=other" is not an option of exports(5)'),
        ("sec=krb6", '"krb6" is not a security flavor of sec=; did you mean "krb5"?'),
        ("xprtsec=tlss", '"tlss" is not a policy of xprtsec=; did you mean "tls"?'),
        ("reexport=auto-fsidnumm", '"auto-fsidnumm" is not a method of reexport=; did you mean "auto-fsidnum"?'),
        ("reexport=none,reexport=none", "only one reexport= is allowed"),
        ("reexport=none,fsid=1", "fsid= has to stand before reexport="),
        ("Xrw", '"Xrw" is not an option of exports(5); did you mean "rw"?'),
        ("rw,Xro", '"Xro" is not an option of exports(5); did you mean "ro"?'),
        ("anonuid=1,Xro", '"Xro" is not an option of exports(5); did you mean "ro"?'),
        ("squash_uids=1-", 'squash_uids="1-" is not a number or a range of numbers'),
        ("anongid=0x1", 'anongid="0x1" is not a number'),
        *(
            (f"fsid={bad}", f'fsid="{bad}" is neither a number, nor "root", nor a UUID of 32 hexadecimal digits')
            for bad in ("x", "08", "0x", "1 ", "ROOT", f"X{UUID[1:]}", f"{UUID}0")
        ),
    ],
)
def test_options_that_exportfs_refuses(options: str, problem: str) -> None:
    assert problem_of(options) == problem


def test_kernels_without_ports_by_flavor_use_those_of_the_export() -> None:
    """There `sec=sys,secure,sec=krb5,insecure` is insecure for both, and etab shows it once."""
    old = Dialect(flavor_flags=_export_options.FLAVOR_FLAGS_OLD)
    assert meaning("sec=sys,secure,sec=krb5,insecure", old) == meaning("insecure,sec=sys:krb5", old)
    assert meaning("sec=sys,secure,sec=krb5,insecure") != meaning("insecure,sec=sys:krb5")


@pytest.mark.parametrize(
    ("option", "version"), [("xprtsec=tls", (2, 6, 2)), ("reexport=none", (2, 6, 2)), ("sign_fh", (2, 8, 3))]
)
def test_options_that_the_server_is_too_old_for(option: str, version: tuple[int, ...]) -> None:
    problem = problem_of(option, Dialect(version))
    assert problem is not None
    assert "needs nfs-utils" in problem
    assert problem_of(option) is None
    assert problem_of(option, Dialect(_export_options.SINCE[option.partition("=")[0]])) is None


@given(options_lists)
def test_a_meaning_spelled_out_means_the_same(options: list[str]) -> None:
    meant = meaning(",".join(options))
    assert meaning(",".join(meant.options())) == meant


@given(options_lists, options_lists)
def test_differences_are_found_exactly_when_there_are_any(one: list[str], other: list[str]) -> None:
    left, right = meaning(",".join(one)), meaning(",".join(other))
    assert bool(_export_options.differences(left, right)) == (left != right)
