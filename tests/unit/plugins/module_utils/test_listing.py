# SPDX-License-Identifier: GPL-3.0-or-later
"""A listing says what the API said, also when it comes back from a file; a broken file is never half a listing."""

from __future__ import annotations

import functools
import json
import stat
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _listing
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from hypothesis import given
from hypothesis import strategies as st


def fill(cluster: Cluster) -> None:
    cluster.add("storageclasses", "gold", provisioner="p", allowVolumeExpansion=True)
    cluster.add("storageclasses", "tin", provisioner="q")
    cluster.add("namespaces", "vault", metadata={"labels": {"storage.clusterkit/protected": "true"}})
    for number, phase in enumerate(("Bound", "Released", "Released")):
        reference = {"namespace": "shop", "name": f"c{number}", "uid": f"u{number}"}
        spec = {"nfs": {"server": "s", "path": f"/nfs/{number}"}, "claimRef": reference, "capacity": {"storage": "1Gi"}}
        cluster.add("persistentvolumes", f"pv-{number}", spec=spec, status={"phase": phase})
    conditions = [{"type": "FileSystemResizePending", "message": "wait"}, {"type": "Resizing"}]
    cluster.add(
        "persistentvolumeclaims", "c0", "shop", uid="u0", metadata={"labels": {"app": "web"}},
        spec={"storageClassName": "gold", "volumeName": "pv-0", "resources": {"requests": {"storage": "1Gi"}}},
        status={"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": conditions},
    )  # fmt: skip
    cluster.add("persistentvolumeclaims", "new", "shop", spec={})
    mounts = [{"nfs": {"server": "s", "path": "/nfs/2"}}]
    cluster.add("pods", "recycler-for-pv-2", "default", spec={"volumes": mounts}, status={"phase": "Running"})


def test_a_listing_for_release_holds_what_the_decisions_hang_on(cluster: Cluster) -> None:
    fill(cluster)
    listing = _listing.read(client(cluster), Selection({"names": ["pv-0", "pv-2"]}), plan_for="reclaim")
    assert [one.name for one in listing.volumes] == ["pv-0", "pv-2"]
    assert (listing.complete, listing.total) == (False, 3)
    assert listing.cluster_uid == cluster.get("namespaces", "kube-system")["metadata"]["uid"]
    assert listing.facts
    assert listing.facts.protected == {"vault"}
    assert listing.facts.claims == {("shop", "c0"): "u0"}
    assert listing.facts.recycled == {"pv-2", "s:/nfs/2"}


def test_a_listing_for_growth_holds_claims_and_classes(cluster: Cluster) -> None:
    fill(cluster)
    listing = _listing.read(client(cluster), Selection({}), plan_for="expand")
    assert (listing.complete, listing.total, listing.facts) == (True, 3, None)
    assert listing.classes == {
        "gold": {"provisioner": "p", "allow_volume_expansion": True, "parameters": {}},
        "tin": {"provisioner": "q", "allow_volume_expansion": False, "parameters": {}},
    }
    bound, new = listing.claims
    metadata = cluster.get("persistentvolumeclaims", "c0", "shop")["metadata"]
    assert bound == {
        "schema": 1,
        "kind": "PersistentVolumeClaim",
        "namespace": "shop",
        "name": "c0",
        "uid": "u0",
        "resource_version": metadata["resourceVersion"],
        "deleting": None,
        "labels": {"app": "web"},
        "storage_class": "gold",
        "volume": "pv-0",
        "phase": "Bound",
        "request": "1Gi",
        "capacity": "1Gi",
        "conditions": {"FileSystemResizePending": "wait", "Resizing": ""},
    }
    assert (new["phase"], new["volume"], new["request"], new["capacity"]) == ("Pending", "", "0", "0")


@pytest.mark.parametrize("plan_for", [None, "reclaim", "expand"])
def test_what_comes_from_a_file_is_what_went_into_it(plan_for: str | None, cluster: Cluster, tmp_path: Path) -> None:
    fill(cluster)
    listing = _listing.read(client(cluster), Selection({}), plan_for=plan_for)
    dest = tmp_path / "listing.jsonl"
    told = _listing.result(listing, str(dest))
    assert (told["dest"], told["volumes"], told["counts"]["volumes"]) == (str(dest), [], 3)
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600, "it may name what not everybody should know"
    again = _listing.load(str(dest))
    assert [one.record() for one in again.volumes] == [one.record() for one in listing.volumes]
    for name in ("cluster_uid", "complete", "listed_at", "total", "facts", "claims", "classes"):
        assert getattr(again, name) == getattr(listing, name), name
    assert [one["name"] for one in _listing.result(listing, None)["volumes"]] == ["pv-0", "pv-1", "pv-2"]


@functools.cache
def text_of_a_listing(served: Cluster) -> str:
    served.clear()
    fill(served)
    listing = _listing.read(client(served), Selection({}), plan_for="expand")
    return "".join(f"{line}\n" for line in _listing.lines(listing))


@given(data=st.data())
def test_a_broken_file_is_refused(served: Cluster, data: st.DataObject) -> None:
    """Cut off anywhere, or a quote in it lost: never a shorter list that passes for the whole."""
    text = text_of_a_listing(served)
    quote = data.draw(st.sampled_from([place for place, character in enumerate(text) if character == '"']))
    end = data.draw(st.one_of(st.integers(0, len(text) - 2), st.sampled_from([0, *_ends_of_lines(text)[:-1]])))
    for broken in (text[:quote] + text[quote + 1 :], text[:end]):
        with pytest.raises(ValueError, match=r"^f(: line \d+: | is empty| was cut off).*; expected"):
            _listing.parse(broken.splitlines(keepends=True), "f")


def _ends_of_lines(text: str) -> list[int]:
    return [place + 1 for place, character in enumerate(text) if character == "\n"]


@pytest.mark.parametrize("line", ["[]", "7", '"text"'])
def test_a_line_that_is_no_object_is_refused(line: str, cluster: Cluster) -> None:
    header = next(_listing.lines(_listing.read(client(cluster), Selection({}))))
    with pytest.raises(ValueError, match="line 2: no object"):
        _listing.parse([header, line], "f")


def test_an_empty_cluster_is_a_listing_too(cluster: Cluster) -> None:
    listing = _listing.read(client(cluster), Selection({}))
    assert (listing.volumes, listing.complete) == ([], True)
    assert json.loads(next(_listing.lines(listing)))["total"] == 0
