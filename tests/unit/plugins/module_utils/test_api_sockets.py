# SPDX-License-Identifier: GPL-3.0-or-later
"""The client and a server on real sockets: connections that break, pages and watches that expire, certificates."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _api
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.tests.api_server import PASSING, Cluster, client
from ansible_collections.clusterkit.storage.tests.api_server_http import serving
from ansible_collections.clusterkit.storage.tests.properties import examples
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

VOLUMES = path_of("persistentvolumes")


def fill(cluster: Cluster, count: int) -> list[str]:
    names = [f"pv-{number:03d}" for number in range(count)]
    for name in names:
        cluster.add("persistentvolumes", name, spec={}, status={"phase": "Available"})
    return names


def label(cluster: Cluster, value: str) -> dict[str, Any]:
    return {
        "metadata": {
            "labels": {"by": value},
            "resourceVersion": cluster.get("persistentvolumes", "pv-000")["metadata"]["resourceVersion"],
        }
    }


@given(fates=st.lists(st.sampled_from(PASSING), max_size=4))
@examples(40)
def test_a_change_under_a_precondition_happens_once_whatever_happens_to_it(served: Cluster, fates: list[str]) -> None:
    served.clear()
    fill(served, 1)
    left = list(fates)
    served.fate = lambda _method, _path: left.pop(0) if left else ""
    try:
        answer = client(served).patch(path_of("persistentvolumes", "pv-000"), label(served, "us"))
        assert answer["metadata"]["labels"] == {"by": "us"}
        assert not {"lost", "error after"} & set(fates)
    except ApiError as error:
        # It has come through before, and comes again: the server refuses what is done.
        assert error.conflict and error.uncertain
        assert {"lost", "error after"} & set(fates)
    assert len(served.effects) == 1


def test_check_mode_is_judged_by_the_server_and_keeps_nothing(cluster: Cluster) -> None:
    fill(cluster, 1)
    before = cluster.get("persistentvolumes", "pv-000")
    api = client(cluster, dry_run=True)
    assert api.patch(path_of("persistentvolumes", "pv-000"), label(cluster, "us"))["metadata"]["labels"] == {"by": "us"}
    with pytest.raises(ApiError, match="immutable"):
        api.patch(path_of("persistentvolumes", "pv-000"), {"spec": {"nfs": {"server": "s"}}})
    assert cluster.get("persistentvolumes", "pv-000") == before
    assert cluster.effects == []


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_pages_come_to_one_list_also_when_they_expire(
    count: int, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_api, "PAGE", 2)
    names = fill(cluster, count)
    listed = client(cluster).list_all(VOLUMES, lambda item: item["metadata"]["name"])
    assert (listed.items, listed.resource_version) == (names, str(cluster.version))
    assert abs(listed.date - time.time()) < 60
    assert len(cluster.asked) == (count + 1) // 2

    # Compacted between two pages, once, and then always.
    for always in (False, True):
        cluster.asked.clear()
        left = ["", "expired"]

        def fate(left: list[str], always: bool, _method: str, path: str) -> str:
            return "expired" if always and "continue" in path else left.pop(0) if left else ""

        cluster.fate = partial(fate, left, always)
        assert client(cluster).list_all(VOLUMES, lambda item: item["metadata"]["name"]).items == names
        if always and count > 2:
            assert "limit" not in cluster.asked[-1], "at last it is read as a whole"


def test_objects_are_counted_and_selected(cluster: Cluster) -> None:
    fill(cluster, 5)
    cluster.change("persistentvolumes", "pv-003", {"metadata": {"labels": {"by": "us"}}})
    api = client(cluster)
    assert api.count(VOLUMES) == (5, str(cluster.version))
    found = api.list_all(VOLUMES, lambda item: item["metadata"]["name"], {"labelSelector": "by=us"})
    assert found.items == ["pv-003"]


def test_what_is_not_there_is_gone(cluster: Cluster) -> None:
    with pytest.raises(ApiError) as told:
        client(cluster).get(path_of("persistentvolumes", "none"))
    assert told.value.gone
    with pytest.raises(ApiError) as told:
        client(cluster).patch(path_of("persistentvolumes", "none"), {"metadata": {"resourceVersion": "1"}})
    assert told.value.gone


def test_an_answer_that_takes_too_long_is_a_lost_one(cluster: Cluster) -> None:
    fill(cluster, 1)
    first = threading.Event()

    def fate(_method: str, _path: str) -> str:
        if not first.is_set():
            first.set()
            time.sleep(0.6)
        return ""

    cluster.fate = fate
    assert client(cluster, request=0.2).get(path_of("persistentvolumes", "pv-000"))["metadata"]["name"] == "pv-000"
    assert len(cluster.asked) == 2


def test_many_at_once_are_each_done_once(cluster: Cluster) -> None:
    names = fill(cluster, 64)
    counter = Counter[str]()
    lock = threading.Lock()

    def fate(method: str, _path: str) -> str:
        with lock:
            counter[method] += 1
            return ("", "", "too many", "dropped", "unavailable")[counter[method] % 5]

    cluster.fate = fate
    api = client(cluster)

    def change(name: str) -> str:
        body = {"metadata": {"labels": {"by": name}, "resourceVersion": "1"}}
        body["metadata"]["resourceVersion"] = api.get(path_of("persistentvolumes", name))["metadata"]["resourceVersion"]
        return str(api.patch(path_of("persistentvolumes", name), body)["metadata"]["labels"]["by"])

    assert api.each(change, names) == names
    assert sorted(one.key[2] for one in cluster.effects) == names


def watched(cluster: Cluster, count: int, seconds: float = 10.0) -> list[tuple[str, str]]:
    found = []
    start = "10"
    for kind, item in client(cluster).watch(VOLUMES, start, time.monotonic() + seconds):
        found.append((kind, item["metadata"].get("name", "")))
        if len(found) == count:
            break
    return found


def test_a_watch_sees_what_was_and_what_comes(cluster: Cluster) -> None:
    fill(cluster, 2)

    def later() -> None:
        time.sleep(0.1)
        cluster.change("persistentvolumes", "pv-000", {"status": {"phase": "Bound"}})
        cluster.remove("persistentvolumes", "pv-001")

    thread = threading.Thread(target=later)
    thread.start()
    assert watched(cluster, 4) == [
        ("ADDED", "pv-000"),
        ("ADDED", "pv-001"),
        ("MODIFIED", "pv-000"),
        ("DELETED", "pv-001"),
    ]
    thread.join()


@pytest.mark.parametrize("fault", ["dropped", "unavailable", "too many"])
def test_a_watch_that_breaks_goes_on_where_it_was(fault: str, cluster: Cluster) -> None:
    fill(cluster, 2)
    left = [fault]
    cluster.fate = lambda _method, _path: left.pop() if left else ""
    assert watched(cluster, 2) == [("ADDED", "pv-000"), ("ADDED", "pv-001")]


def test_a_watch_of_a_quiet_cluster_ends_with_a_bookmark_and_begins_again(cluster: Cluster) -> None:
    found = watched(cluster, 5, seconds=1.3)
    assert found[:1] == [("BOOKMARK", "")]
    assert len(cluster.asked) == 2


def test_a_watch_of_changes_that_were_forgotten_says_so(cluster: Cluster) -> None:
    fill(cluster, 1)
    cluster.expire()
    with pytest.raises(ApiError, match="too old resource version") as told:
        watched(cluster, 1)
    assert told.value.status == 410


def test_a_watch_that_is_refused_is_not_tried_again(cluster: Cluster) -> None:
    cluster.fate = lambda _method, _path: "forbidden"
    with pytest.raises(ApiError, match="the role of this user needs verb watch on persistentvolumes: RBAC says no"):
        watched(cluster, 1)
    assert len(cluster.asked) == 1


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """What a server shows that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    none = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
    file = folder / f"{name}.pem"
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def test_a_certificate_that_nobody_vouches_for_is_no_outage(tmp_path: Path) -> None:
    with serving(certificate(tmp_path, "api")) as cluster:
        began = time.monotonic()
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            client(cluster, retry=60.0).get(path_of("namespaces", "kube-system"))
        assert time.monotonic() - began < 10, "it is not tried again"
        assert cluster.asked == []
