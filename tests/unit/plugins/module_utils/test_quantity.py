# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of volumes and claims are compared exactly, whatever way they are written."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _quantity
from hypothesis import given
from hypothesis import strategies as st

SUFFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "e3": 1000, "E3": 1000, "e-3": Fraction(1, 1000), "e+2": 100,
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "factor"), SUFFIXES.items())
def test_every_suffix_has_its_exact_value(suffix: str, factor: Fraction) -> None:
    assert _quantity.parse(f"7{suffix}") == 7 * factor
    assert _quantity.parse(f"0.1{suffix}") == Fraction(1, 10) * factor


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        # Seen in answers of a v1.37 API server.
        ("1.3Gi", "1395864371200m"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        ("1000Mi", "1000Mi"),
        ("1536Mi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1000", "1k"),
        ("1500M", "1500M"),
        ("1e3", "1e3"),
        ("1e-3", "1e-3"),
        ("100e1", "1e3"),
        ("1e4", "10e3"),
        ("0.1Ki", "102400m"),
        ("1.0001Mi", "1048680858m"),
        ("123456789n", "124m"),
        (".5Gi", "512Mi"),
        ("1e20", "100e18"),
        ("1000Ki", "1000Ki"),
        ("0.5Ki", "512"),
        ("1k", "1k"),
        ("2Ti", "2Ti"),
        ("10Ei", "9223372036854775807"),
        ("0", "0"),
    ],
)
def test_the_spelling_is_the_api_servers(written: str, stored: str) -> None:
    assert _quantity.canonical(written) == stored


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("1GB", 'unknown suffix "GB"; did you mean "G"?'),
        ("1gi", 'did you mean "Gi"?'),
        ("1 Gi", 'did you mean "Gi"?'),
        ("5K", 'did you mean "k"?'),
        ("ten", "is not a quantity; write for example 500Mi"),
        ("", "is not a quantity"),
        (".", "is not a quantity"),
        ("1Gi\n", "is not a quantity"),
        ("\u0661Gi", "is not a quantity"),
        ("1e99999999", "is not a quantity"),
        ("9" * 100, "is not a quantity"),
    ],
)
def test_what_is_no_quantity_is_refused_with_a_hint(written: str, words: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity") as refused:
        _quantity.parse(written)
    assert words in str(refused.value)


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]))
def test_the_stored_spelling_means_the_same_size(whole: int, thousandths: int, suffix: str) -> None:
    written = f"{whole}.{thousandths:03}{suffix}"
    stored = _quantity.canonical(written)
    assert _quantity.canonical(stored) == stored
    assert 0 <= _quantity.parse(stored) - _quantity.parse(written) < Fraction(1, 1000)


@given(st.integers(0, 2**62))
def test_bytes_survive(size: int) -> None:
    assert _quantity.to_bytes(_quantity.canonical(size)) == size
    assert _quantity.to_bytes(str(size)) == size


def test_part_of_a_byte_counts_as_a_whole_one() -> None:
    assert _quantity.to_bytes("1395864371200m") == 1395864372
    assert _quantity.to_bytes("1.3Gi") == 1395864372


@pytest.mark.parametrize(
    ("text", "value", "stored"),
    [
        ("-5", -5, "-5"),
        ("-2Ki", -2048, "-2Ki"),
        ("+3M", 3_000_000, "3M"),
        ("1Ki", 1024, "1Ki"),
        ("0.5Ki", 512, "512"),
        ("1024Ki", 1024**2, "1Mi"),
        ("1000E", 1000 * 10**18, "1000E"),
        ("1e21", 10**21, "1e21"),
        ("1E3", 1000, "1e3"),
        ("0", 0, "0"),
    ],
)
def test_signs_and_the_ends_of_each_scale(text: str, value: int, stored: str) -> None:
    assert _quantity.parse(text) == value
    assert _quantity.canonical(text) == stored


@pytest.mark.parametrize(("text", "meant"), [("1GiB", "Gi"), ("1GB", "G"), ("5mib", "Mi"), ("1kb", "k"), ("2gi", "Gi")])
def test_the_suffix_that_was_meant_is_named(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f'did you mean "{meant}"'):
        _quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5gib", 'unknown suffix "gib"; did you mean "Gi"?'),
        ("5MB", 'unknown suffix "MB"; did you mean "M"?'),
        ("5 K", 'unknown suffix " K"; did you mean "k"?'),
        ("5N", 'unknown suffix "N"'),
        ("5U", 'unknown suffix "U"'),
        ("5b", 'unknown suffix "b"'),
        ("5x", 'unknown suffix "x"'),
    ],
)
def test_the_suffix_that_is_meant_is_named_if_it_is_one_of_a_size(text: str, words: str) -> None:
    problem = f'"{text}" is not a quantity: {words}'
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        _quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("1Ei", "1Ei"),
        ("1e3", "1e3"),
        ("1500e0", "1500"),
        ("1000e3", "1e6"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("1.", "1"),
        ("-3M", "-3M"),
        ("-1.5Ki", "-1536"),
        ("1000000E", "1000000E"),
    ],
)
def test_how_the_api_server_writes_it(text: str, stored: str) -> None:
    assert _quantity.canonical(text) == stored


def test_a_number_of_64_characters_is_read_and_a_longer_one_is_not() -> None:
    assert _quantity.parse("1" * 64) == int("1" * 64)
    with pytest.raises(ValueError, match="is not a quantity; write for example 500Mi"):
        _quantity.parse("1" * 65)
