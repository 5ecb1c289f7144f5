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


@given(options_lists)
def test_a_meaning_spelled_out_means_the_same(options: list[str]) -> None:
    meant = meaning(",".join(options))
    assert meaning(",".join(meant.options())) == meant


@given(options_lists, options_lists)
def test_differences_are_found_exactly_when_there_are_any(one: list[str], other: list[str]) -> None:
    left, right = meaning(",".join(one)), meaning(",".join(other))
    assert bool(_export_options.differences(left, right)) == (left != right)
