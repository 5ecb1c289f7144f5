# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches of an API that drops connections, expires and ends; headers of access."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api, Patience
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError

PATH = "/api/v1/persistentvolumes"


class Stream:
    """An answer in parts that do not end where lines end."""

    def __init__(self, *events: dict[str, Any], status: int = 200, fault: Exception | None = None) -> None:
        self.status, self.headers, self.closed = status, {"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, False
        self._text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        self._fault = fault

    def stream(self, _size: int) -> Iterator[bytes]:
        yield from (self._text[start : start + 7] for start in range(0, len(self._text), 7))
        if self._fault:
            raise self._fault

    def read(self) -> bytes:
        return b'{"message": "no"}'

    def close(self) -> None:
        self.closed = True


class Pool:
    def __init__(self, *streams: Stream | Exception) -> None:
        self.streams = list(streams)
        self.asked: list[str] = []

    def request(self, _method: str, url: str, **_options: Any) -> Stream:
        self.asked.append(url)
        following = self.streams.pop(0)
        if isinstance(following, Exception):
            raise following
        return following


def event(kind: str, version: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": f"pv-{version}", "resourceVersion": str(version)}, **more}}


def watched(pool: Pool, count: int, pauses: list[float] | None = None) -> list[tuple[str, str]]:
    access = Access("https://api", pool, urllib3.HTTPHeaderDict)
    api = Api(access, Patience(1.0, 60.0), sleep=(pauses if pauses is not None else []).append)
    found = []
    for kind, item in api.watch(PATH, "7", time.monotonic() + 60, {"labelSelector": "a=b"}):
        found.append((kind, item["metadata"]["name"]))
        if len(found) == count:
            break
    return found


def test_changes_come_as_they_happen_and_the_watch_goes_on_where_it_was() -> None:
    first, second = Stream(event("ADDED", 8), event("MODIFIED", 9)), Stream(event("DELETED", 10))
    pool = Pool(first, second)
    assert watched(pool, 3) == [("ADDED", "pv-8"), ("MODIFIED", "pv-9"), ("DELETED", "pv-10")]
    assert first.closed
    assert "resourceVersion=7" in pool.asked[0]
    assert "resourceVersion=9" in pool.asked[1]
    assert all("labelSelector=a%3Db" in url and "watch=1" in url for url in pool.asked)


@pytest.mark.parametrize(
    "fault",
    [urllib3.exceptions.ProtocolError("broken"), ConnectionResetError(), Stream(status=503), Stream(status=429)],
)
def test_a_dropped_watch_begins_again(fault: Stream | Exception) -> None:
    pauses: list[float] = []
    assert watched(Pool(fault, Stream(event("ADDED", 8))), 1, pauses) == [("ADDED", "pv-8")]
    assert pauses == [0.5]


def test_nothing_is_lost_when_a_connection_breaks_in_the_middle() -> None:
    broken = Stream(event("ADDED", 8), fault=urllib3.exceptions.ProtocolError("broken"))
    assert watched(Pool(broken, Stream(event("ADDED", 9))), 2) == [("ADDED", "pv-8"), ("ADDED", "pv-9")]


def test_changes_that_are_not_known_any_more_are_said() -> None:
    expired = {"type": "ERROR", "object": {"message": "too old resource version", "code": 410}}
    with pytest.raises(ApiError, match="watch of persistentvolumes: too old resource version") as told:
        watched(Pool(Stream(expired)), 1)
    assert told.value.status == 410


def test_a_refused_watch_is_no_passing_fault() -> None:
    with pytest.raises(ApiError) as told:
        watched(Pool(Stream(status=403)), 1)
    assert told.value.status == 403


def test_a_watch_ends_with_its_deadline() -> None:
    api = Api(Access("https://api", Pool(), urllib3.HTTPHeaderDict), Patience(1.0, 60.0))
    assert list(api.watch(PATH, "7", time.monotonic() - 1)) == []
    seen = []
    pool = Pool(Stream(event("ADDED", 8), event("ADDED", 9)))
    until = time.monotonic() + 0.05
    for kind, _item in Api(Access("https://api", pool, urllib3.HTTPHeaderDict), Patience()).watch(PATH, "7", until):
        seen.append(kind)
        time.sleep(0.06)
    assert seen == ["ADDED"]


def test_a_wrong_certificate_is_not_tried_again() -> None:
    error = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("self-signed certificate"))
    pool = Pool(error)
    api = Api(Access("https://api", pool, urllib3.HTTPHeaderDict), Patience(1.0, 60.0))
    with pytest.raises(ApiError, match="self-signed certificate"):
        api.get(f"{PATH}/a")
    assert len(pool.asked) == 1
