# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host of the inventory is meant by the name or address that a volume calls its server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any


def normal(name: str) -> str:
    """One spelling for each name or address: no brackets, no dot at the end, small letters, IPv6 compressed."""
    plain = name.strip().strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(plain.partition("%")[0]).compressed
    except ValueError:
        return plain


def of_host(name: str, address: str, facts: Mapping[str, Any]) -> list[str]:
    """All names and addresses under which clients may reach a host; the most telling ones first."""
    own = [name, address, *(facts.get(key) or "" for key in ("fqdn", "nodename", "hostname"))]
    numbers = [*(facts.get("all_ipv4_addresses") or []), *(facts.get("all_ipv6_addresses") or [])]
    usable = [one for one in map(normal, [*own, *numbers]) if one and not _only_local(one)]
    return list(dict.fromkeys(usable))


def owners(server: str, known: Mapping[str, Iterable[str]]) -> list[str]:
    """The hosts that C(server) may mean; several when an address (a bridge, NAT) is in use on more than one."""
    wanted = normal(server)
    return [host for host, addresses in known.items() if wanted in set(map(normal, addresses))]


def _only_local(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.startswith("localhost.")
    return address.is_loopback or address.is_link_local
