# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes quantities such as C(1.3Gi), exact and in the API server's own spelling."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(.*)", re.DOTALL | re.ASCII)
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,3})", re.ASCII)
_MILLI = Fraction(1, 1000)
_LARGEST_BINARY = 2**63 - 1
_DIGITS_AT_MOST = 64


def parse(text: str | int) -> Fraction:
    """The exact value; ValueError says what a quantity looks like."""
    return _read(str(text))[0]


def to_bytes(text: str | int) -> int:
    """The value in whole bytes, rounded up as Kubernetes does (Quantity.Value())."""
    return math.ceil(parse(text))


def canonical(text: str | int) -> str:
    """The spelling in which the API server stores the quantity: C(1.3Gi) becomes C(1395864371200m)."""
    value, form = _read(str(text))
    # Sizes in a resource list are rounded up to the thousandth part (SetDefaults_ResourceList).
    value = math.ceil(value / _MILLI) * _MILLI
    if form == "binary":
        value = min(max(value, Fraction(-_LARGEST_BINARY)), Fraction(_LARGEST_BINARY))
        if value.denominator == 1 and abs(value) >= 1024:
            return _with_binary_suffix(int(value))
    mantissa = int(value / _MILLI)
    exponent = -3
    while mantissa and mantissa % 1000 == 0 and (form == "exponent" or exponent < 18):
        mantissa //= 1000
        exponent += 3
    if not mantissa:
        return "0"
    if form == "exponent":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{next(name for name, power in _DECIMAL.items() if power == exponent)}"


def _with_binary_suffix(number: int) -> str:
    step = 0
    while number % 1024 == 0:
        number //= 1024
        step += 1
    return f"{number}{['', *_BINARY][step]}"


def _read(text: str) -> tuple[Fraction, str]:
    match = _FORM.fullmatch(text)
    if not match or len(text) > _DIGITS_AT_MOST:
        raise ValueError(f'"{text}" is not a quantity; write for example 500Mi, 1.3Gi or 2Ti')
    sign, digits, suffix = match.groups()
    number = Fraction(digits) * (-1 if sign == "-" else 1)
    if suffix in _BINARY:
        return number * 2 ** _BINARY[suffix], "binary"
    if suffix in _DECIMAL:
        return number * Fraction(10) ** _DECIMAL[suffix], "decimal"
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent:
        return number * Fraction(10) ** int(exponent.group(1)), "exponent"
    raise ValueError(f'"{text}" is not a quantity: unknown suffix "{suffix}"{_meant(suffix)}')


def _meant(suffix: str) -> str:
    short = suffix.strip().lower()
    short = short[:-1] if short.endswith("b") else short
    known = {name.lower(): name for name in [*_DECIMAL, *_BINARY] if name not in ("", "n", "u")}
    return f'; did you mean "{known[short]}"?' if short in known else ""
