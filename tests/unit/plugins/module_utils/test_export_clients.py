# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a client specification lets in, and which of them are one for exportfs."""

from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_clients


@pytest.mark.parametrize(
    "host", ["*", "", "0.0.0.0/0", "::/0", "10.0.0.0/0", "1.2.3.4/0.0.0.0", "**", "*.*", "?*", "1.2.3.4/"]
)
def test_clients_that_are_everybody(host: str) -> None:
    assert _export_clients.matches_everybody(host)


@pytest.mark.parametrize("host", ["*.example.com", "10.0.0.0/8", "::/1", "h", "@all", "10.0.0.1", "[a-z]*", "::1"])
def test_clients_that_are_not(host: str) -> None:
    assert not _export_clients.matches_everybody(host)


def test_spellings_of_one_client_have_one_key() -> None:
    assert _export_clients.client_key("2001:DB8:0::1") == _export_clients.client_key("2001:db8::1")
    assert _export_clients.client_key("Host.Example.COM") == _export_clients.client_key("host.example.com")
    assert _export_clients.client_key("") == _export_clients.client_key("*")
    assert _export_clients.client_key("10.0.0.0/8") != _export_clients.client_key("10.0.0.0/255.0.0.0")
