# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of volumes say what the API said, also years later from a file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _selection
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume, counts
from hypothesis import given
from hypothesis import strategies as st

NFS = {
    "metadata": {
        "name": "pvc-1",
        "uid": "u1",
        "resourceVersion": "12",
        "annotations": {"pv.kubernetes.io/provisioned-by": "fuseim.pri/ifs"},
        "labels": {"app": "web"},
        "finalizers": ["kubernetes.io/pv-protection"],
    },
    "spec": {
        "capacity": {"storage": "1.3Gi"},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "managed",
        "mountOptions": ["hard"],
        "nfs": {"server": "192.0.2.10", "path": "/nfs/k8s/dpv/a"},
        "claimRef": {"namespace": "shop", "name": "data", "uid": "c1"},
    },
    "status": {"phase": "Released", "lastPhaseTransitionTime": "2026-03-01T12:00:00Z"},
}
CSI = {
    "metadata": {"name": "csi-1"},
    "spec": {
        "csi": {
            "driver": "nfs.csi.k8s.io",
            "volumeHandle": "s#share#d#u#",
            "volumeAttributes": {"server": "s", "share": "/share", "subDir": "d"},
        }
    },
}
SERVERS = [
    {
        "name": "tank",
        "addresses": ["192.0.2.10"],
        "shares": [
            {"server_path": "/data", "client_path": "/"},
            {"server_path": "/srv/k8s", "client_path": "/nfs/k8s"},
        ],
    }
]
NOW = 1772366400.0 + 86400  # a day after the release


def test_a_record_has_all_that_the_life_cycle_needs() -> None:
    one = Volume.of(NFS)
    one.place_in(ServerMap(SERVERS))
    assert one.record() == {
        "schema": 1, "name": "pvc-1", "uid": "u1", "resource_version": "12", "phase": "Released", "deleting": None,
        "policy": "Retain", "storage_class": "managed", "provisioner": "fuseim.pri/ifs",
        "provisioner_state": "unknown", "driver": "nfs", "csi": None, "server": "192.0.2.10",
        "path": "/nfs/k8s/dpv/a", "share": "/srv/k8s", "server_dir": "/srv/k8s/dpv/a", "read_only": False,
        "capacity": 1395864372, "access_modes": ["ReadWriteMany"], "mount_options": ["hard"],
        "claim": {"namespace": "shop", "name": "data", "uid": "c1"}, "finalizers": ["kubernetes.io/pv-protection"],
        "released_at": "2026-03-01T12:00:00Z",
        "annotations": {"pv.kubernetes.io/provisioned-by": "fuseim.pri/ifs"}, "labels": {"app": "web"},
    }  # fmt: skip


def test_csi_volumes_of_nfs_tell_server_and_path() -> None:
    record = Volume.of(CSI).record()
    assert (record["driver"], record["server"], record["path"]) == ("csi", "s", "/share/d")
    assert record["provisioner"] == record["csi"]["driver"] == "nfs.csi.k8s.io"
    assert Volume.of({"metadata": {"name": "x"}, "spec": {"hostPath": {}}}).driver == "other"


@pytest.mark.parametrize(
    ("attributes", "handle", "path"),
    [
        ({"subdir": "pvc-1"}, "s#share#pvc-1##", "/share/pvc-1"),  # as csi-driver-nfs writes it
        ({"SubDir": "a/b/"}, "anything", "/share/a/b"),
        ({"share": "/share/pvc-2"}, "s#share#pvc-2", "/share/pvc-2"),  # as it wrote it before 4.1
        ({}, "anything", "/share"),
        ({"share": "share/"}, "anything", "/share"),
        ({"share": "/"}, "anything", "/"),
        ({"share": ""}, "anything", None),
        ({"subdir": "${pvc.metadata.name}"}, "anything", None),
    ],
)
def test_the_directory_of_a_csi_volume_is_found_however_it_is_spelled(
    attributes: dict[str, str], handle: str, path: str | None
) -> None:
    csi: dict[str, Any] = {"driver": "nfs.csi.k8s.io", "volumeHandle": handle}
    csi["volumeAttributes"] = {"server": "s", "share": "/share", **attributes}
    assert Volume.of({**CSI, "spec": {"csi": csi}}).path == path


@pytest.mark.parametrize("path", ["/nfs/k8s//a", "/nfs/k8s/./a", "//nfs/k8s/a/", "/nfs/k8s/a"])
def test_all_spellings_of_a_path_are_one_directory(path: str) -> None:
    assert ServerMap(SERVERS).find("192.0.2.10", path) == ("tank", "/srv/k8s", "/srv/k8s/a")


def test_what_may_mean_two_directories_is_placed_nowhere() -> None:
    shares = [{"server_path": path, "client_path": "/a"} for path in ("/x", "/y")]
    assert ServerMap([{"name": "s", "shares": shares}]).find("s", "/a/b") is None
    twins = [{"name": name, "addresses": ["192.0.2.1"], "shares": shares[:1]} for name in ("s", "t")]
    assert ServerMap(twins).find("192.0.2.1", "/a/b") is None
    assert ServerMap(twins).find("s", "/a/b") == ("s", "/x", "/x/b")
    assert ServerMap(twins).roots() == {"s": ["/x"], "t": ["/x"]}


parts = st.sampled_from(["a", "b", "k8s", ".", "..", ""])
paths = st.lists(parts, max_size=4).map(lambda found: "/" + "/".join(found))
pairs = st.fixed_dictionaries({"client_path": paths, "server_path": paths})


@given(st.lists(pairs, max_size=4), st.lists(paths | st.just("a/b"), max_size=8))
def test_what_was_found_for_a_neighbour_changes_nothing(shares: list[dict[str, str]], wanted: list[str]) -> None:
    servers = [{"name": "s", "shares": shares}]
    remembers = ServerMap(servers)
    for path in wanted:
        expected = ServerMap(servers)._find("s", path) if path.startswith("/") else None
        assert remembers.find("s", path) == expected, path


def test_a_path_that_leaves_the_share_is_placed_nowhere() -> None:
    one = Volume.of(NFS)
    one.path = "/nfs/k8s/../../etc"
    one.place_in(ServerMap(SERVERS))
    assert one.server_dir is None


@given(
    st.sampled_from([NFS, CSI]),
    st.dictionaries(st.text(min_size=1), st.text()),
    st.one_of(st.none(), st.tuples(st.text(), st.text(), st.one_of(st.none(), st.text(min_size=1)))),
)
def test_records_survive_a_file(item: dict[str, Any], labels: dict[str, str], claim: Any) -> None:
    one = Volume.of(item)
    one.labels, one.claim = labels, claim
    listing = _listing.Listing([one], "c", True, "2026-03-01T12:00:00Z", 1)
    again = _listing.parse([f"{line}\n" for line in _listing.lines(listing)], "f")
    assert again.volumes[0].record() == json.loads(json.dumps(one.record()))
    assert (again.cluster_uid, again.complete, again.total) == ("c", True, 1)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "is empty"),
        (["{}"], "line 1: no header of kind VolumeSet"),
        (["nonsense"], "line 1"),
        (['{"schema": 2, "kind": "VolumeSet"}'], "line 1"),
    ],
)
def test_what_is_no_listing_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _listing.parse(lines, "f")


def test_a_record_of_a_later_schema_is_refused() -> None:
    header = next(_listing.lines(_listing.Listing([], "c", True, "t")))
    with pytest.raises(ValueError, match="line 2: schema is 7; expected 1"):
        _listing.parse([header, json.dumps(Volume.of(NFS).record() | {"schema": 7})], "f")


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({"names": ["pvc-*"]}, True), ({"names": ["pvc"]}, False), ({"storage_classes": ["managed"]}, True),
        ({"storage_classes": [""]}, False), ({"provisioners": ["fuseim.pri/ifs"]}, True), ({"drivers": ["nfs"]}, True),
        ({"drivers": ["nfs.csi.k8s.io"]}, False), ({"phases": ["Bound"]}, False), ({"policies": ["Retain"]}, True),
        ({"server": "192.0.2.10"}, True), ({"server": "192.0.2.1"}, False), ({"path_prefix": "/nfs/k8s"}, True),
        ({"path_prefix": "/nfs/k"}, False), ({"claim_namespaces": ["sh*"]}, True), ({"claim_namespaces": ["a"]}, False),
        ({"released_for": "1d"}, True), ({"released_for": "1d1s"}, False), ({"abandoned": True}, False),
        ({"abandoned": False}, True), ({"phases": ["Released"], "policies": ["Delete"]}, False),
    ],
)  # fmt: skip
def test_every_criterion_must_fit(criteria: dict[str, Any], fits: bool) -> None:
    assert _selection.Selection(criteria).fits(Volume.of(NFS), NOW) is fits


def test_a_volume_of_unknown_age_is_never_older_than_anything() -> None:
    for time in (None, "yesterday"):
        one = Volume.of(NFS)
        one.released_at = time
        assert not _selection.Selection({"released_for": "0s"}).fits(one, NOW)


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"names": []}, "selection.names is empty"),
        ({"server": ""}, "selection.server is empty"),
        ({"phase": ["Bound"]}, '"phase" is not a criterion'),
        ({"released_for": "3 days"}, "is not a length of time"),
        ({"released_for": "30"}, "is not a length of time"),
    ],
)
def test_criteria_that_make_no_sense_are_refused(criteria: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _selection.Selection(criteria)


def test_counts_add_up() -> None:
    found = counts([Volume.of(NFS), Volume.of(CSI)])
    assert (found["volumes"], found["bytes"]) == (2, 1395864372)
    assert found["by_phase"] == {"Pending": {"volumes": 1, "bytes": 0}, "Released": {"volumes": 1, "bytes": 1395864372}}
    assert counts([])["volumes"] == 0
