# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of exports(5): what exportfs takes a client specification for, and whom it lets in."""

from __future__ import annotations

import functools
import ipaddress
import socket

from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import to_long


@functools.lru_cache(maxsize=8192)
def client_kind(host: str) -> str:
    """Return how exportfs takes a client: anonymous, gss, netgroup, wildcard, network or host."""
    if host in ("", "*"):
        return "anonymous"
    if host.startswith("gss/"):
        return "gss"
    if host.startswith("@"):
        return "netgroup"
    position = 0
    while position < len(host):
        character = host[position]
        if character in "*?[":
            return "wildcard"
        if character == "/":
            return "network"
        if character == "\\" and position + 1 < len(host):
            position += 1
        position += 1
    return "host"


def is_address(host: str) -> bool:
    """Tell whether a client of kind host is an address and not a name."""
    return _is_ipv4(host) or _is_ipv6(host)


def _is_ipv4(text: str) -> bool:
    return _pton(socket.AF_INET, text) is not None


def _is_ipv6(text: str) -> bool:
    return _pton(socket.AF_INET6, text.partition("%")[0]) is not None


def _pton(family: int, text: str) -> bytes | None:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError, UnicodeError):
        return None


@functools.lru_cache(maxsize=8192)
def network_problem(host: str) -> str | None:
    """Return why exportfs drops a client of kind network, None when it takes it."""
    address, _separator, mask = host.partition("/")
    if _is_ipv4(address):
        if "." in mask:
            return None if _is_ipv4(mask) else f'"{mask}" is not a netmask'
        longest = 32
    elif _is_ipv6(address):
        if ":" in mask:
            return None if _is_ipv6(mask) else f'"{mask}" is not a netmask'
        longest = 128
    else:
        return f'"{address}" is not an IP address'
    length = to_long(mask) if mask else 0
    if length is None or not 0 <= length <= longest:
        return f'"{mask}" is not a prefix length from 0 to {longest}'
    return None


@functools.lru_cache(maxsize=8192)
def matches_everybody(host: str) -> bool:
    """Tell whether a client specification lets in the whole world."""
    kind = client_kind(host)
    if kind == "anonymous":
        return True
    if kind == "wildcard":
        return not host.strip("*?.")
    if kind == "network":
        mask = host.partition("/")[2]
        if "." in mask or ":" in mask:
            family = socket.AF_INET if "." in mask else socket.AF_INET6
            packed = _pton(family, mask)
            return packed is not None and not any(packed)
        return network_problem(host) is None and not (to_long(mask) if mask else 0)
    return False


@functools.lru_cache(maxsize=8192)
def client_key(host: str) -> str:
    """Return the name by which exportfs knows a client, names not resolved: what is equal here is one client."""
    kind = client_kind(host)
    if kind == "anonymous":
        return "*"
    if kind == "host" and is_address(host):
        address, percent, scope = host.partition("%")
        return str(ipaddress.ip_address(address)) + percent + scope
    return host.lower()
