# SPDX-License-Identifier: GPL-3.0-or-later
"""Growing must never shrink, never change a policy, and leave objects that agree whenever it stops."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _expand, _expand_run, _plan, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._expand import Growth, Size, decide
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from hypothesis import given
from hypothesis import strategies as st

GROWS = {"gold": {"provisioner": "p", "allow_volume_expansion": True}}


def claim(**values: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "namespace": "shop", "name": "data", "uid": "c1", "resource_version": "3", "deleting": None, "labels": {},
        "storage_class": "gold", "volume": "pv", "phase": "Bound", "request": "10Gi", "capacity": "10Gi",
        "conditions": {},
    }  # fmt: skip
    return {**made, **values}


def volume(**values: Any) -> Volume:
    spec = {"nfs": {"server": "s", "path": "/nfs/a"}, "capacity": {"storage": "10Gi"}}
    spec |= {"claimRef": {"namespace": "shop", "name": "data", "uid": "c1"}}
    metadata = {"name": "pv", "uid": "v1", "resourceVersion": "5"}
    made = Volume.of({"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}})
    for name, value in values.items():
        setattr(made, name, value)
    return made


def applied(growth: Growth, count: int) -> tuple[dict[str, Any], Volume]:
    """The objects after the first C(count) changes."""
    assert growth.volume
    one, two = dict(growth.claim), volume(**{name: getattr(growth.volume, name) for name in Volume.__slots__})
    for change in growth.changes[:count]:
        if change.kind == "volume":
            two.capacity = _quantity.to_bytes(change.body["spec"]["capacity"]["storage"])
        elif change.kind == "status":
            one["capacity"] = change.body["status"]["capacity"]["storage"]
        else:
            one["request"] = change.body["spec"]["resources"]["requests"]["storage"]
    return one, two


sizes = st.integers(1, 40).map(lambda number: f"{number}Gi")
claims = st.builds(
    claim,
    request=sizes,
    capacity=sizes,
    phase=st.sampled_from(["Bound", "Bound", "Pending", "Lost"]),
    storage_class=st.sampled_from(["gold", "tin", ""]),
    deleting=st.sampled_from([None, None, "2026"]),
)
volumes = st.builds(
    volume,
    capacity=sizes.map(_quantity.to_bytes),
    policy=st.sampled_from(["Retain", "Retain", "Delete", "Recycle"]),
    driver=st.sampled_from(["nfs", "nfs", "csi", "other"]),
    phase=st.sampled_from(["Bound", "Bound", "Released"]),
    deleting=st.sampled_from([None, None, "2026"]),
    claim=st.sampled_from([("shop", "data", "c1"), ("shop", "data", "c2"), None]),
)


@given(claims, volumes, sizes, st.booleans())
def test_nothing_shrinks_and_nothing_doubtful_is_touched(
    one: dict[str, Any], two: Volume, target: str, allow: bool
) -> None:
    growth = decide(one, two, GROWS, target, allow_delete_policy=allow)
    assert not (growth.changes and growth.refusal)
    if not growth.changes:
        return
    assert one["phase"] == "Bound"
    assert not one["deleting"]
    assert not two.deleting
    assert two.driver != "other"
    assert two.claim == ("shop", "data", "c1")
    assert two.policy == "Retain" or allow
    assert "persistentVolumeReclaimPolicy" not in str(growth.changes)
    size = _quantity.to_bytes(target)
    for what in (one["request"], one["capacity"], two.capacity):
        assert _quantity.to_bytes(what) <= size
    if one["storage_class"] != "gold":
        assert "request" not in [change.kind for change in growth.changes], "the API would refuse it"
    assert all(growth.precondition.values())


@given(
    st.lists(st.integers(1, 40), min_size=3, max_size=3).map(sorted), st.integers(1, 40), st.sampled_from(["gold", ""])
)
def test_whenever_it_stops_the_objects_agree_and_the_next_run_ends_the_same(
    gib: list[int], request: int, storage_class: str
) -> None:
    # As the API and the controllers keep them: the claim has at most what its volume has.
    target = f"{gib[2]}Gi"
    one = claim(capacity=f"{gib[0]}Gi", request=f"{min(request, gib[2])}Gi", storage_class=storage_class)
    two = volume(capacity=gib[1] * 2**30)
    growth = decide(one, two, GROWS, target)
    assert not growth.refusal
    ends = []
    for count in range(len(growth.changes) + 1):
        claim_then, volume_then = applied(growth, count)
        assert _quantity.to_bytes(claim_then["capacity"]) <= volume_then.capacity
        if (
            _quantity.to_bytes(claim_then["request"])
            == _quantity.to_bytes(target)
            != _quantity.to_bytes(one["request"])
        ):
            assert claim_then["capacity"] == target, "a claim that asks for more than it has waits for a resizer"
        again = decide(claim_then, volume_then, GROWS, target)
        assert not again.refusal
        ends.append(applied(again, len(again.changes)))
        assert again.changes == growth.changes[count:]
    for claim_then, volume_then in ends:
        assert volume_then.capacity == _quantity.to_bytes(target)
        assert _quantity.to_bytes(claim_then["capacity"]) == volume_then.capacity


@given(st.lists(st.tuples(claims, volumes), max_size=5), sizes)
def test_same_input_same_plan_and_every_step_has_its_precondition(
    pairs: list[tuple[dict[str, Any], Volume]], target: str
) -> None:
    growths = [decide({**one, "name": f"c{n}"}, two, GROWS, target) for n, (one, two) in enumerate(pairs)]
    told = {"cluster_uid": "c", "listed_at": "t", "host": "localhost"}
    plan = _expand_run.plan(growths, [], {}, **told)
    assert plan == _expand_run.plan(growths[::-1], [], {}, **told)
    assert _plan.read(_plan.write(plan), "expand") == plan
    for step in plan["steps"]:
        assert set(step["precondition"]) == {
            "uid", "resource_version", "volume", "volume_uid", "volume_resource_version",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "now", "target"),
    [
        ("20Gi", 0, "20Gi"),
        ("1.3Gi", 0, "1395864371200m"),
        ("1500M", 0, "1500M"),
        ("+5Gi", 10 * 2**30, "15Gi"),
        ("+20%", 10 * 2**30, "12Gi"),
        ("+10%", 2**30, "1127Mi"),
        ("+0.5Gi", 1395864372, "1932735284"),
        ("+1", 1024, "1025"),
    ],
)
def test_sizes_are_absolute_or_relative(text: str, now: int, target: str) -> None:
    assert Size(text).target(now) == target


@given(st.integers(1, 2**50), st.integers(0, 500))
def test_percent_give_at_least_what_they_say(now: int, percent: int) -> None:
    grown = _quantity.to_bytes(Size(f"+{percent}%").target(now))
    assert 0 <= grown - now * (100 + percent) / 100 < 2**20 + 1


@pytest.mark.parametrize("wrong", ["", "0", "-5Gi", "20GB", "20%", "+ten", "+-5Gi", "++5Gi", "+0", "much"])
def test_wrong_sizes_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|is no size"):
        Size(wrong)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"named": [], "selection": None, "size": "1Gi"}, "^claims is empty: no claim means none, never all$"),
        (
            {"named": None, "selection": {}, "size": "1Gi"},
            r'^selection is empty, which never means all; to mean all claims, say names: \["\*"\]$',
        ),
        (
            {"named": None, "selection": {"name": ["a"]}, "size": "1Gi"},
            '"name" is not a criterion; known are labels, names, namespaces, storage_classes$',
        ),
        ({"named": None, "selection": {"names": []}, "size": "1Gi"}, "never means all"),
        ({"named": None, "selection": {"names": ["*"]}, "size": None}, "no size"),
        ({"named": [{"namespace": "a", "name": "b"}], "selection": None, "size": None}, r"claims\[0\]: no size"),
        ({"named": [{"namespace": "a", "name": "b"}] * 2, "selection": None, "size": "1"}, "listed twice"),
        (
            {"named": [{"namespace": "a", "name": "b", "size": "x"}], "selection": None, "size": None},
            r"claims\[0\].size",
        ),
    ],
)
def test_requests_without_claims_or_sizes_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _expand.choose([claim()], **arguments)


@pytest.mark.parametrize(
    ("of_claim", "of_volume", "words"),
    [
        ({"deleting": "2026"}, {}, "is being deleted since 2026"),
        ({"phase": "Pending"}, {}, "only a bound claim"),
        ({}, None, "its volume pv does not exist"),
        ({}, {"deleting": "2026"}, "its volume pv is being deleted"),
        ({}, {"claim": None}, "bound to nothing"),
        ({}, {"driver": "other"}, "neither an NFS nor a CSI volume"),
        ({"request": "30Gi"}, {}, "its request is 30Gi"),
        ({"capacity": "30Gi"}, {}, "would shrink: its capacity is 30Gi, more than 20Gi; a volume never shrinks"),
        ({}, {"capacity": 30 * 2**30}, "would shrink: the capacity of its volume is 32212254720, more than 20Gi"),
        (
            *({}, {"policy": "Delete"}),
            "its volume pv has policy Delete: set Retain first, or say allow_delete_policy: true; "
            "the policy stays as it is",
        ),
        ({"storage_class": "tin"}, {"driver": "csi"}, '"tin" does not exist'),
        ({"storage_class": "fixed"}, {"driver": "csi"}, '"fixed" does not allow expansion'),
    ],
)
def test_a_refusal_says_why(of_claim: dict[str, Any], of_volume: dict[str, Any] | None, words: str) -> None:
    two = None if of_volume is None else volume(**of_volume)
    one = claim(**of_claim)
    growth = decide(one, two, {**GROWS, "fixed": {"allow_volume_expansion": False}}, "20Gi")
    assert words in growth.refusal
    assert (growth.claim, growth.volume, growth.target) == (one, two, "20Gi")
    assert not growth.changes
    assert not growth.waits


def test_a_csi_claim_that_has_asked_waits_for_its_resizer() -> None:
    growth = decide(claim(request="20Gi"), volume(driver="csi"), GROWS, "20Gi")
    assert growth.waits
    assert not growth.changes
    asks = decide(claim(), volume(driver="csi"), GROWS, "20Gi")
    assert [change.kind for change in asks.changes] == ["request"]
    assert asks.note == "the resizer of the driver does the rest"


def test_a_request_that_stays_is_noted() -> None:
    whole = decide(claim(), volume(), GROWS, "20Gi")
    assert ([change.kind for change in whole.changes], whole.note) == (["volume", "status", "request"], "")
    stays = decide(claim(storage_class=""), volume(), GROWS, "20Gi")
    assert [change.kind for change in stays.changes] == ["volume", "status"]
    assert stays.note == "the request of the claim stays 10Gi: no StorageClass of it allows expansion"
    assert decide(claim(storage_class="", request="20Gi"), volume(), GROWS, "20Gi").note == ""


def test_a_volume_outside_of_any_share_counts_for_its_directory() -> None:
    one, without = volume(), volume(server=None)
    refused = decide(claim(request="30Gi"), one, GROWS, "20Gi")
    assert refused.refusal
    assert _expand.shares([without, one], [refused]) == [
        {"server": "s", "path": "/nfs", "promised_before": 10 * 2**30, "promised": 10 * 2**30} | UNKNOWN
    ]


UNKNOWN = {"size": None, "overcommitted": None}


def test_claims_are_chosen_by_every_criterion() -> None:
    many = [claim(), claim(name="other", labels={"app": "web"}), claim(namespace="bank", storage_class="tin")]

    def names(**selection: Any) -> list[str]:
        found, _missing = _expand.choose(many, named=None, selection=selection, size="1Gi")
        return [_expand.name_of(one) for one, _size in found]

    assert names(namespaces=["sh*"]) == ["shop/data", "shop/other"]
    assert names(names=["data"], storage_classes=["tin"]) == ["bank/data"]
    assert names(labels={"app": "web"}) == ["shop/other"]
    named = [{"namespace": "shop", "name": "data"}, {"namespace": "shop", "name": "gone"}]
    found, missing = _expand.choose(many, named=named, selection=None, size="1Gi")
    assert (len(found), missing) == (1, ["shop/gone"])


def test_the_shares_say_what_they_promise() -> None:
    one = decide(claim(), volume(), GROWS, "20Gi")
    alone = volume(name="b", path="/nfs/b")
    servers = [{"name": "s", "shares": [{"server_path": "/nfs", "client_path": "/nfs", "size": "25Gi"}]}]
    many = [one.volume, alone]
    placed = [entry for entry in many if entry]
    for entry in placed:
        entry.place_in(ServerMap(servers))
    gib = 2**30
    assert _expand.shares(placed, [one], servers) == [
        {
            "server": "s",
            "path": "/nfs",
            "promised_before": 20 * gib,
            "promised": 30 * gib,
            "size": 25 * gib,
            "overcommitted": 5 * gib,
        }
    ]
    assert _expand.quotas([one]) == [
        {
            "server": "s",
            "path": "/nfs/a",
            "share": "/nfs",
            "server_dir": "/nfs/a",
            "limit": 20 * gib,
            "claim": "shop/data",
        }
    ]


def test_a_claim_without_volume_has_no_precondition() -> None:
    refused = decide(claim(volume=""), None, GROWS, "20Gi", allow_delete_policy=False)
    assert refused.refusal
    with pytest.raises(ValueError, match="shop/data has no volume"):
        assert refused.precondition


def test_two_servers_with_shares_of_one_path_are_not_mixed_up() -> None:
    servers = [
        {"name": "one", "addresses": ["192.0.2.1"], "shares": [share("/nfs", "15Gi")]},
        {"name": "two", "addresses": ["192.0.2.2"], "shares": [share("/nfs", "5Gi")]},
    ]
    placed = [volume(name="a", server="192.0.2.1"), volume(name="b", server="192.0.2.2")]
    for entry in placed:
        entry.place_in(ServerMap(servers))
    told = _expand.shares(placed, [], servers)
    assert [(one["server"], one["size"], one["overcommitted"]) for one in told] == [
        ("192.0.2.1", 15 * 2**30, 0),
        ("192.0.2.2", 5 * 2**30, 5 * 2**30),
    ]


def share(path: str, size: str) -> dict[str, str]:
    return {"server_path": path, "client_path": path, "size": size}


def test_limits_are_for_nfs_volumes_whose_claims_get_their_size() -> None:
    grown = decide(claim(), volume(), GROWS, "20Gi")
    refused = decide(claim(), volume(policy="Delete"), GROWS, "20Gi")
    elsewhere = decide(claim(), volume(driver="csi", path=None), GROWS, "20Gi")
    nothing = decide(claim(volume=""), None, GROWS, "20Gi")
    assert refused.refusal and nothing.refusal and not elsewhere.refusal
    assert [one["path"] for one in _expand.quotas([grown, refused, elsewhere, nothing])] == ["/nfs/a"]


def test_a_choice_without_size_is_refused_and_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"^no size is given$"):
        _expand.choose([claim()], named=None, selection={"names": ["*"]}, size=None)
    found, _missing = _expand.choose(
        [claim(), claim(name="other")], named=None, selection={"names": ["oth*"]}, size="1Gi"
    )
    assert [one["name"] for one, _size in found] == ["other"]
