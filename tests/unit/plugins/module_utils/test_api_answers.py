# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever an API server, or a proxy before it, answers is read without a crash, and told in few words."""

from __future__ import annotations

import ssl
import time

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import (
    Response,
    date_of,
    is_certificate_error,
    message_of,
    resource_of,
    retry_after,
)

DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/v1/persistentvolumes", "persistentvolumes"),
        ("/api/v1/persistentvolumes/pv1", 'persistentvolumes "pv1"'),
        ("/api/v1/namespaces/shop", 'namespaces "shop"'),
        ("/api/v1/namespaces/shop/pods", 'pods in namespace "shop"'),
        ("/api/v1/namespaces/shop/pods/web/log", 'pods/log "web" in namespace "shop"'),
        ("/apis/apps/v1/namespaces/shop/deployments/web", 'deployments "web" in namespace "shop"'),
        ("/apis/storage.k8s.io/v1/storageclasses/nfs", 'storageclasses "nfs"'),
        ("/apis", "/apis"),
        ("/version", "/version"),
    ],
)
def test_a_path_is_told_as_users_call_it(path: str, told: str) -> None:
    assert resource_of(path) == told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"message": "pods is\\n forbidden"}', "pods is forbidden"),
        (b"<html> Bad\n Gateway", "<html> Bad Gateway"),
        (b'["no", "status"]', '["no", "status"]'),
        (b'{"reason": "Gone"}', '{"reason": "Gone"}'),
        (b"\xff" + b"x" * 300, "\ufffd" + "x" * 199),
        (b"", ""),
    ],
)
def test_a_message_is_one_short_line(data: bytes, told: str) -> None:
    assert message_of(data) == told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("3", 3.0),
        ("-3", 0.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_how_long_to_wait_is_told_in_seconds_or_as_a_date_by_the_server_s_clock(
    text: str, seconds: float | None
) -> None:
    assert retry_after(Response(429, {"Retry-After": text, "Date": DATE}, b"")) == seconds


def test_without_a_date_it_is_now() -> None:
    assert date_of(Response(200, {"Date": DATE}, b"")) == NOW
    for headers in ({}, {"Date": "yesterday"}):
        assert abs(date_of(Response(200, headers, b"")) - time.time()) < 60


def test_a_certificate_that_is_refused_is_found_behind_the_errors_of_libraries() -> None:
    refused = ssl.SSLCertVerificationError("self-signed")
    assert is_certificate_error(refused)
    assert is_certificate_error(OSError("pool", ConnectionError(refused)))
    behind = OSError("no reason in its arguments")
    behind.__cause__ = refused
    assert is_certificate_error(behind)
    assert not is_certificate_error(None)
    assert not is_certificate_error(OSError("pool", ssl.SSLError("protocol")))
    circle = OSError("a")
    circle.__context__ = circle
    assert not is_certificate_error(circle)
