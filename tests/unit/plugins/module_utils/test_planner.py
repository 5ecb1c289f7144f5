# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan is made of the right listing only, and never of more than was allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _api_module,
    _expand,
    _listing,
    _plan,
    _planner,
    _selection,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Use
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.plugins.modules import storage_plan


def volume(number: int, phase: str = "Bound") -> Volume:
    return Volume.of(
        {
            "metadata": {"name": f"pv-{number}", "uid": f"u{number}", "resourceVersion": "7"},
            "spec": {
                "nfs": {"server": "s", "path": f"/nfs/{number}"},
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "shop", "name": f"c{number}", "uid": f"cu{number}"},
            },
            "status": {"phase": phase},
        }
    )


def listed(
    folder: Path, *, complete: bool = False, facts: bool | Facts = True, count: int = 3, phase: str = "Bound"
) -> str:
    listing = _listing.Listing(
        [volume(number, phase) for number in range(count)],
        "cluster",
        complete,
        "2026-01-01T00:00:00Z",
        count,
        facts if isinstance(facts, Facts) else Facts() if facts else None,
        [
            _listing.claim_record(
                {
                    "metadata": {"namespace": "shop", "name": f"c{n}", "uid": f"cu{n}", "resourceVersion": "3"},
                    "spec": {"volumeName": f"pv-{n}", "resources": {"requests": {"storage": "1Gi"}}},
                    "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
                }
            )
            for n in range(count)
        ],
    )
    file = folder / "listing.jsonl"
    file.write_text("".join(f"{line}\n" for line in _listing.lines(listing)))
    return str(file)


def plan(action: str, listing: str | None, request: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    given = {
        "action": action,
        "plan": None,
        "listing": listing,
        "host": "localhost",
        "max_changes": None,
        action: request,
    }
    return _planner.plan({**given, **more}).plan


def test_a_plan_holds_what_is_listed(tmp_path: Path) -> None:
    made = plan("reclaim", listed(tmp_path), {"policy": "Retain"})
    assert [step["item"] for step in made["steps"]] == ["pv-0", "pv-1", "pv-2"]
    grown = plan("expand", listed(tmp_path, complete=True), {"selection": {"names": ["*"]}, "size": "2Gi"})
    assert len(grown["steps"]) + len(grown["refusals"]) == 3
    file = tmp_path / "plan.json"
    file.write_text(_plan.write(made))
    assert plan("reclaim", None, None, plan=str(file)) == made


def test_a_listing_that_is_not_for_this_plan_is_refused(tmp_path: Path) -> None:
    purpose = r"^the listing does not say what a plan needs; make it with plan_for: reclaim$"
    with pytest.raises(ValueError, match=purpose):
        plan("reclaim", listed(tmp_path, facts=False), {"policy": "Retain"})
    everything = r'^the listing is of all volumes, and no selection never .*, or names: \["\*"\] if all are meant$'
    with pytest.raises(ValueError, match=everything):
        plan("reclaim", listed(tmp_path, complete=True), {"policy": "Retain"})
    whole = r"^the listing is not of all volumes; make it without a selection, and with plan_for: expand$"
    with pytest.raises(ValueError, match=whole):
        plan("expand", listed(tmp_path), {"selection": {"names": ["*"]}, "size": "2Gi"})


def test_more_than_is_allowed_makes_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 volumes would be changed, but max_changes is 34%, which is 2 of 3 volumes"):
        plan("reclaim", listed(tmp_path), {"policy": "Retain"}, max_changes="34%")
    assert plan("reclaim", listed(tmp_path), {"policy": "Retain"}, max_changes="100%")["steps"]
    file = tmp_path / "plan.json"
    file.write_text(_plan.write(plan("reclaim", listed(tmp_path), {"policy": "Retain"})))
    judged = r"^max_changes: percent need the listing; a plan that is there was judged when it was made$"
    with pytest.raises(ValueError, match=judged):
        plan("reclaim", None, None, plan=str(file), max_changes="50%")
    with pytest.raises(ValueError, match=r"plan.json .*reclaim"):
        plan("expand", None, None, plan=str(file))
    made = _planner.plan(dict.fromkeys(storage_plan.ARGUMENTS) | {"action": "reclaim", "plan": str(file)})
    assert (made.measure, list(made.report)) == ({}, [])
    with pytest.raises(ValueError, match="3 volumes would be changed, but max_changes is 2 so nothing was done"):
        plan("reclaim", None, None, plan=str(file), max_changes="2")


def test_a_claim_that_was_just_made_can_be_listed() -> None:
    made = _listing.claim_record(
        {"metadata": {"namespace": "a", "name": "b", "uid": "c", "resourceVersion": "1"}, "spec": {}}
    )
    assert (made["phase"], made["request"], made["capacity"], made["volume"]) == ("Pending", "0", "0", "")


def csi(**values: Any) -> Volume:
    made = Volume.of(
        {
            "metadata": {"name": "pv", "uid": "v1", "resourceVersion": "5"},
            "spec": {
                "csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": "h"},
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": "shop", "name": "data", "uid": "c1"},
            },
            "status": {"phase": "Bound"},
        }
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("asked", "classes", "changes", "refusal", "waits"),
    [
        ("1Gi", {"gold": {"allow_volume_expansion": True}}, 1, "", True),
        ("2Gi", {"gold": {"allow_volume_expansion": True}}, 0, "", True),
        (
            "1Gi",
            {"gold": {"allow_volume_expansion": False}},
            0,
            'its StorageClass "gold" does not allow expansion',
            False,
        ),
        ("1Gi", {}, 0, 'its StorageClass "gold" does not exist', False),
    ],
)
def test_a_csi_volume_grows_by_its_driver(
    asked: str, classes: dict[str, Any], changes: int, refusal: str, waits: bool
) -> None:
    claim = _listing.claim_record(
        {
            "metadata": {"namespace": "shop", "name": "data", "uid": "c1", "resourceVersion": "3"},
            "spec": {
                "volumeName": "pv",
                "storageClassName": "gold",
                "resources": {"requests": {"storage": asked}},
            },
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        }
    )
    growth = _expand.decide(claim, csi(), classes, "2Gi")
    assert (len(growth.changes), growth.refusal, growth.waits) == (changes, refusal, waits)
    assert growth.is_csi


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"deleting": "2026"}, "its volume pv is being deleted since 2026"),
        ({"phase": "Released"}, "its volume pv is Released and bound to shop/data"),
        ({"claim": None}, "bound to nothing"),
        ({"driver": "other"}, "is neither an NFS nor a CSI volume"),
        ({"policy": "Delete"}, "set Retain first, or say allow_delete_policy: true"),
        ({"capacity": 3 * 2**30}, "would shrink: the capacity of its volume is"),
    ],
)
def test_a_volume_that_must_not_grow_is_named_with_the_reason(values: dict[str, Any], words: str) -> None:
    claim: dict[str, Any] = {
        "namespace": "shop", "name": "data", "uid": "c1", "resource_version": "3", "deleting": None, "labels": {},
        "storage_class": "gold", "volume": "pv", "phase": "Bound", "request": "1Gi", "capacity": "1Gi",
        "conditions": {},
    }  # fmt: skip
    growth = _expand.decide(claim, csi(**values), {"gold": {"allow_volume_expansion": True}}, "2Gi")
    assert words in growth.refusal
    assert not growth.changes


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({"names": ["pv*"]}, True),
        ({"names": ["other"]}, False),
        ({"drivers": ["csi"]}, False),
        ({"drivers": ["nfs"]}, True),
        ({"server": "s"}, True),
        ({"server": "t"}, False),
        ({"path_prefix": "/nfs"}, True),
        ({"path_prefix": "/nf"}, False),
        ({"claim_namespaces": ["sh*"]}, True),
        ({"claim_namespaces": ["bank"]}, False),
        ({"abandoned": True}, False),
        ({"phases": ["Released"]}, False),
        ({"released_for": "1d12h"}, False),
    ],
)
def test_every_criterion_decides(criteria: dict[str, Any], fits: bool) -> None:
    assert _selection.Selection(criteria).fits(volume(1), 0.0) is fits


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"colour": "red"}, '"colour" is not a criterion'),
        ({"names": []}, "names is empty"),
        ({"released_for": "soon"}, "length"),
    ],
)
def test_a_criterion_that_makes_no_sense_is_refused(criteria: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _selection.Selection(criteria)


def test_what_the_api_selects_by_is_left_to_it() -> None:
    chosen = _selection.Selection({"label_selectors": ["a=b", "c"], "abandoned": None})
    assert (chosen.label_selector, chosen.is_empty, chosen.asks_for_provisioners) == ("a=b,c", False, False)
    assert _selection.Selection({"abandoned": False}).asks_for_provisioners
    assert [one.name for one in _selection.by_name([volume(2), volume(1)])] == ["pv-1", "pv-2"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "selection is empty, which never means all"),
        ({"selection": {"names": []}, "size": "2Gi"}, "selection is empty, which never means all"),
        ({"selection": {"colour": "red"}, "size": "2Gi"}, '"colour" is not a criterion'),
        ({"selection": {"names": ["*"]}}, "no size is given"),
        ({"selection": {"names": ["*"]}, "size": "big"}, "size: "),
        ({"claims": [{"namespace": "shop", "name": "c0"}]}, r"claims\[0\]: no size; give it here or for all"),
        ({"claims": [{"namespace": "shop", "name": "c0", "size": "2Gi"}] * 2}, "shop/c0 is listed twice"),
    ],
)
def test_a_request_to_grow_that_makes_no_sense_makes_no_plan(
    tmp_path: Path, request_: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        plan("expand", listed(tmp_path, complete=True), request_)


@pytest.mark.parametrize(
    ("environment", "parameters", "found"),
    [
        ({"K8S_AUTH_KUBECONFIG": "/k"}, {}, {"kubeconfig": "/k"}),
        ({"K8S_AUTH_KUBECONFIG": "/k"}, {"kubeconfig": "/mine"}, {"kubeconfig": "/mine"}),
        ({"K8S_AUTH_VERIFY_SSL": "no"}, {}, {"verify_ssl": False}),
        ({"K8S_AUTH_VERIFY_SSL": "yes"}, {}, {"verify_ssl": True}),
        (
            {"K8S_AUTH_PROXY_HEADERS_USER_AGENT": "me"},
            {},
            {"proxy_headers": {"user_agent": "me"}},
        ),
    ],
)
def test_access_comes_from_the_environment_where_it_is_not_given(
    environment: dict[str, str], parameters: dict[str, Any], found: dict[str, Any]
) -> None:
    assert _api_module.access_arguments(parameters, environment) == found


def test_every_group_has_a_header_of_its_own() -> None:
    headers = _api_module.headers_of({}, {"K8S_AUTH_IMPERSONATE_GROUPS": "a,,b", "K8S_AUTH_IMPERSONATE_USER": "me"})
    assert headers == {"Impersonate-User": ["me"], "Impersonate-Group": ["a", "b"]}
    assert _api_module.headers_of({"impersonate_groups": ["c"]}, {}) == {"Impersonate-Group": ["c"]}


def test_a_plan_says_for_which_cluster_and_host_and_when_it_was_listed(tmp_path: Path) -> None:
    growing = {"selection": {"names": ["*"]}, "size": "2Gi", "allow_delete_policy": True}
    for made in (
        plan("reclaim", listed(tmp_path), {"policy": "Retain"}, host="api1"),
        plan("expand", listed(tmp_path, complete=True), growing, host="api1"),
    ):
        assert (made["cluster_uid"], made["listed_at"]) == ("cluster", "2026-01-01T00:00:00Z")
        assert made["refusals"] == []
        assert {step["host"] for step in made["steps"]} == {"api1"}
        assert len(made["steps"]) == 3


def test_volumes_whose_policy_is_delete_grow_only_if_that_is_allowed(tmp_path: Path) -> None:
    made = plan("expand", listed(tmp_path, complete=True), {"selection": {"names": ["*"]}, "size": "2Gi"})
    assert (len(made["steps"]), len(made["refusals"])) == (0, 3)
    assert made["request"] == {"allow_delete_policy": False}


@pytest.mark.parametrize("where", ["listing", "request"])
def test_a_protected_namespace_is_protected_by_the_listing_and_by_the_request(tmp_path: Path, where: str) -> None:
    facts = Facts(
        protected=frozenset({"shop"} if where == "listing" else ()),
        claims={("shop", f"c{number}"): f"cu{number}" for number in range(3)},
    )
    listing = listed(tmp_path, facts=facts)
    more = {"protected_namespaces": ["shop"]} if where == "request" else {}
    request = {"policy": "Recycle", "allow_future_deletion": True}
    made = plan("reclaim", listing, {**request, **more})
    assert [one["reason"] for one in made["refusals"]] == ['belongs to the protected namespace "shop"'] * 3
    other = plan("reclaim", listed(tmp_path, facts=dataclasses.replace(facts, protected=frozenset())), request)
    assert (len(other["steps"]), other["refusals"]) == (3, [])


def test_a_volume_that_was_recycled_is_known_from_the_listing(tmp_path: Path) -> None:
    facts = Facts(recycled=frozenset({"pv-0"}))
    loaded = _listing.load(listed(tmp_path, facts=facts))
    assert loaded.facts is not None and loaded.facts.recycled == {"pv-0"}
    listing = listed(tmp_path, facts=facts, phase="Released")
    made = plan("reclaim", listing, {"policy": "Retain", "release": "reserved"})
    assert [(one["item"], one["reason"]) for one in made["refusals"]] == [("pv-0", "a recycler pod is emptying it")]


def test_what_hosts_mount_is_told_with_their_names(tmp_path: Path) -> None:
    file = tmp_path / "mounts.jsonl"
    file.write_bytes('{"name": "nödé", "problem": "", "sources": ["nfs1:/a:/b", "tmpfs"]}\n'.encode())
    assert list(_planner._mounts(str(file))) == [Use("host nödé", "nfs1", "/a:/b")]


def test_what_a_recovery_needs_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^recover: is needed, with what the nodes told$"):
        plan("recover", str(tmp_path), None)
    with pytest.raises(ValueError, match=r"^max_changes: for recover give a count: its steps concern mounts and pods"):
        plan("recover", str(tmp_path), {"nodes": "x"}, max_changes="10%")
