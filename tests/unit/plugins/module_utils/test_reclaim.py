# SPDX-License-Identifier: GPL-3.0-or-later
"""No decision about a volume may lead to the loss of what is on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _reclaim, _reclaim_plan
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts, Request, decide, needs_recyclers
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import (
    BOUND_BY_CONTROLLER,
    PREVIOUS_POLICY,
    PROVISIONED_BY,
    Volume,
)
from ansible_collections.clusterkit.storage.tests.merge_patch import merged
from hypothesis import given
from hypothesis import strategies as st

PHASES = ["Pending", "Available", "Bound", "Released", "Failed"]
POLICIES = ["Retain", "Delete", "Recycle"]


def volume(**values: Any) -> Volume:
    made = Volume.of(
        {"metadata": {"name": "pv", "uid": "u1", "resourceVersion": "7"}, "spec": {"nfs": {"server": "s"}}}
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made


def as_object(one: Volume) -> dict[str, Any]:
    spec: dict[str, Any] = {"persistentVolumeReclaimPolicy": one.policy}
    spec |= {} if one.driver == "other" else {one.driver: {"driver": "x"} if one.driver == "csi" else {"server": "s"}}
    if one.claim:
        names = zip(("namespace", "name", "uid"), one.claim, strict=True)
        spec["claimRef"] = {key: value for key, value in names if value}
    metadata: dict[str, Any] = {
        "name": one.name,
        "uid": one.uid,
        "resourceVersion": "8",
        "deletionTimestamp": one.deleting,
    }
    metadata |= {"annotations": dict(one.annotations), "labels": dict(one.labels)}
    return {"metadata": metadata, "spec": spec, "status": {"phase": one.phase}}


claims = st.one_of(
    st.none(), st.tuples(st.sampled_from(["shop", "bank"]), st.sampled_from(["a", "b"]), st.sampled_from([None, "c1"]))
)
volumes = st.builds(
    volume,
    phase=st.sampled_from(PHASES),
    policy=st.sampled_from(POLICIES),
    driver=st.sampled_from(["nfs", "csi", "other"]),
    deleting=st.sampled_from([None, None, "2026-01-01T00:00:00Z"]),
    claim=claims,
    provisioner_state=st.sampled_from(["running", "stopped", "unknown"]),
    annotations=st.dictionaries(
        st.sampled_from([PROVISIONED_BY, BOUND_BY_CONTROLLER, PREVIOUS_POLICY, "example.com/why"]),
        st.sampled_from(["x", "Delete", "Recycle"]),
    ),
    labels=st.dictionaries(st.sampled_from(["app"]), st.sampled_from(["x", "y"])),
)
facts = st.builds(
    Facts,
    protected=st.frozensets(st.sampled_from(["shop", "bank"])),
    claims=st.dictionaries(
        st.tuples(st.sampled_from(["shop", "bank"]), st.sampled_from(["a", "b"])), st.sampled_from(["c1", "c2"])
    ),
    recycled=st.frozensets(st.just("pv")),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    made = Request(
        policy=draw(st.sampled_from([None, "Previous", *POLICIES])),
        release=draw(st.sampled_from([None, "open", "reserved"])),
        labels=draw(st.dictionaries(st.just("app"), st.sampled_from(["x", None]))),
        annotations=draw(st.dictionaries(st.just("example.com/why"), st.sampled_from(["x", None]))),
        time_annotation=draw(st.sampled_from([None, "example.com/when"])),
        allow_future_deletion=draw(st.booleans()),
        keep_previous=draw(st.booleans()),
    )
    try:
        made.check()
    except ValueError:
        return dataclasses.replace(made, policy="Retain", keep_previous=False)
    return made


@given(volumes, requests(), facts)
def test_what_protects_data_is_never_broken(one: Volume, request: Request, known: Facts) -> None:
    decision = decide(one, request, known)
    assert not (decision.patch and decision.refusal)
    if not decision.patch:
        return
    body = decision.body(request, "2026-01-01T00:00:00Z")
    assert body["metadata"]["resourceVersion"] == "7", "no patch without its precondition"
    assert "finalizers" not in body["metadata"]
    assert one.driver != "other"
    after = Volume.of(merged(as_object(one), body))
    living = known.claims.get(one.claim[:2]) if one.claim else None
    if after.policy != one.policy and after.policy != "Retain":
        assert request.allow_future_deletion
        assert one.phase in ("Bound", "Available")
        assert not one.deleting
        assert not (one.claim and one.claim[0] in known.protected)
        assert not (one.claim and one.claim[2]) or living == one.claim[2], "a claim that is gone: it would go at once"
    if after.claim != one.claim:
        assert request.release
        assert one.phase in ("Released", "Failed", "Available")
        assert not one.deleting
        assert one.claim
        assert one.claim[0] not in known.protected
        assert not one.claim[2] or living is None, "the old claim exists"
        assert not one.claim[2] or (one.policy != "Recycle" and one.name not in known.recycled)
        if one.claim[2] and one.policy == "Delete" and one.is_dynamic:
            assert one.provisioner_state == "stopped", "its provisioner may be deleting the directory"
        if one.phase in ("Released", "Failed"):
            assert after.policy == "Retain" or request.allow_future_deletion
        assert BOUND_BY_CONTROLLER not in after.annotations
        assert PREVIOUS_POLICY not in after.annotations, "who releases a volume decides anew"
        if request.release == "reserved":
            assert after.claim == (*one.claim[:2], None)
        else:
            assert after.claim is None


@given(volumes, requests(), facts)
def test_what_was_done_is_not_done_again(one: Volume, request: Request, known: Facts) -> None:
    decision = decide(one, request, known)
    if decision.patch:
        after = Volume.of(merged(as_object(one), decision.body(request, "2026-01-01T00:00:00Z")))
        if after.claim != one.claim:
            after.phase = "Available"  # as the controller does
        again = decide(after, request, known)
        assert (again.patch, again.refusal) == ({}, "")


@given(st.lists(volumes, max_size=6), requests(), facts)
def test_same_input_same_plan_and_every_step_has_its_precondition(
    many: list[Volume], request: Request, known: Facts
) -> None:
    for number, one in enumerate(many):
        one.name = f"pv-{number}"

    def plan(order: list[Volume]) -> dict[str, Any]:
        decisions = [decide(one, request, known) for one in order]
        return _reclaim_plan.plan(decisions, request, cluster_uid="c", listed_at="t", host="localhost")

    made = plan(many)
    assert made == plan(many[::-1])
    assert all(step["precondition"] == {"uid": "u1", "resource_version": "7"} for step in made["steps"])
    assert len(made["steps"]) + len(made["refusals"]) + made["unchanged"] == len(many)
    assert _plan.read(_plan.write(made), "reclaim") == made


def test_the_time_comes_only_with_another_change() -> None:
    request = Request(policy="Retain", time_annotation="example.com/when")
    assert not decide(volume(policy="Retain"), request, Facts()).patch
    body = decide(volume(policy="Delete", phase="Bound"), request, Facts()).body(request, "now")
    assert body["metadata"]["annotations"] == {"example.com/when": "now"}


@pytest.mark.parametrize(
    ("given_request", "words"),
    [
        ({}, "^nothing is asked for: give policy, release, labels or annotations$"),
        (
            {"release": "reserved", "content": "quarantine"},
            "^content: quarantine belongs to release: open; who a volume is reserved for is to find its data$",
        ),
        ({"annotations": {"example.k8s.io/x": "y"}}, "belongs to Kubernetes"),
        ({"policy": "Previous"}, "allow_future_deletion"),
        ({"labels": {"a": "b"}, "keep_previous": True}, "^keep_previous: belongs to policy: Retain, which takes"),
        (
            {"policy": "Retain", "keep_previous": True, "release": "open"},
            "^keep_previous and release exclude each other: who takes a released volume must not get the policy that "
            "its last owner had$",
        ),
        ({"policy": "Delete"}, "allow_future_deletion"),
        ({"policy": "Delete", "release": "open", "allow_future_deletion": True}, "exclude each other"),
        ({"annotations": {PROVISIONED_BY: "x"}}, "belongs to Kubernetes"),
        ({"labels": {"a b": "x"}}, "is not a key"),
        ({"labels": {"app": "no good"}}, "is not the value of a label"),
        ({"labels": {"app": ["x"]}}, "is not a text"),
        ({"policy": "Retain", "time_annotation": "kubernetes.io/when"}, "belongs to Kubernetes"),
    ],
)
def test_wrong_requests_are_refused_in_words(given_request: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Request.of(given_request)


RELEASED = {"phase": "Released", "claim": ("shop", "a", "c1")}


@pytest.mark.parametrize(
    ("values", "known", "words"),
    [
        ({"phase": "Bound", "claim": ("shop", "a", "c1")}, Facts(), "is Bound to shop/a"),
        (RELEASED, Facts(protected=frozenset({"shop"})), 'protected namespace "shop"'),
        (RELEASED, Facts(claims={("shop", "a"): "c2"}), "exists again, with another uid"),
        (
            *({**RELEASED, "phase": "Failed"}, Facts(claims={("shop", "a"): "c2"})),
            "exists again, with another uid: whose data this is must be decided by a person; delete or rename one of",
        ),
        (RELEASED, Facts(claims={("shop", "a"): "c1"}), "still exists"),
        (RELEASED, Facts(recycled=frozenset({"pv"})), "a recycler pod is emptying it"),
        (RELEASED, Facts(recycled=frozenset({"s:None"})), "recycler pod is emptying it"),
        (
            *({**RELEASED, "policy": "Recycle"}, Facts()),
            "its policy is Recycle: the controller may be emptying it at this moment; set policy Retain first, and "
            "release it in a later run",
        ),
        ({**RELEASED, "deleting": "2026"}, Facts(), "is being deleted since 2026"),
        ({**RELEASED, "phase": "Available"}, Facts(), "about to be bound or released"),
        ({"phase": "Pending"}, Facts(), "names no claim"),
    ],
)
def test_release_is_refused_with_the_reason(values: dict[str, Any], known: Facts, words: str) -> None:
    decision = decide(volume(**values), Request(policy="Retain", release="reserved"), known)
    assert words in decision.refusal


@pytest.mark.parametrize(
    ("phase", "claim", "release", "done"),
    [
        ("Available", None, "open", True),
        ("Available", ("shop", "a", ""), "open", False),
        ("Available", ("shop", "a", ""), "reserved", True),
        ("Available", ("shop", "a", "c1"), "reserved", False),
        ("Available", None, "reserved", False),
        ("Released", None, "open", False),
        ("Released", ("shop", "a", ""), "reserved", False),
    ],
)
def test_a_volume_is_released_when_the_next_claim_may_take_it(phase: str, claim: Any, release: str, done: bool) -> None:
    assert _reclaim._is_released(volume(phase=phase, claim=claim), Request(release=release)) is done


def test_a_volume_without_a_claim_has_nothing_to_release() -> None:
    def refusal(phase: str, release: str) -> str:
        return decide(volume(phase=phase), Request(policy="Retain", release=release), Facts()).refusal

    assert refusal("Available", "open") == ""
    assert refusal("Available", "reserved") == "is Available and names no claim that it could be reserved for"
    for release in ("open", "reserved"):
        assert refusal("Failed", release) == "is Failed and names no claim: there is nothing to release"


def test_a_volume_with_policy_delete_is_released_when_nobody_can_be_deleting_it() -> None:
    def refusal(state: str, **values: Any) -> str:
        one = volume(**RELEASED, policy="Delete", annotations={PROVISIONED_BY: "p"}, provisioner="p")
        one.provisioner_state = state
        return decide(one, Request(release="reserved", **values), Facts()).refusal

    assert refusal("stopped", allow_future_deletion=True) == ""
    assert refusal("stopped") == (
        "its policy is Delete: the old content would go with the next claim; add policy: Retain, or say "
        "allow_future_deletion: true"
    )
    assert refusal("running", allow_future_deletion=True) == (
        "its policy is Delete and its provisioner p is running: it may be deleting the data at this moment; set policy "
        "Retain first, and release it in a later run"
    )


def test_what_is_allowed_is_read_from_the_request() -> None:
    allowed = Request.of({"policy": "Delete", "allow_future_deletion": True})
    assert allowed.allow_future_deletion is True
    assert Request.of({"policy": "Retain"}).allow_future_deletion is False
    with pytest.raises(ValueError, match="say allow_future_deletion: true if that is meant"):
        Request.of({"policy": "Delete"})


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"release": "open"}, "any claim may take it now; the old content will be visible to the next one"),
        ({"release": "open", "content": "quarantine"}, "any claim may take it now; its old content is in quarantine"),
        ({"release": "reserved"}, "only a claim shop/a may take it now, and will find its old content"),
    ],
)
def test_who_may_take_a_released_volume_is_noted(values: dict[str, Any], note: str) -> None:
    assert decide(volume(**RELEASED), Request(policy="Retain", **values), Facts()).note == note


def test_a_released_volume_is_no_longer_bound_by_the_controller() -> None:
    one = volume(**RELEASED, policy="Retain", annotations={BOUND_BY_CONTROLLER: "yes"})
    assert decide(one, Request(release="reserved"), Facts()).patch == {
        "metadata": {"annotations": {BOUND_BY_CONTROLLER: None}},
        "spec": {"claimRef": {"uid": None, "resourceVersion": None}},
    }
    labelled = decide(one, Request(labels={"a": "b"}), Facts())
    assert (labelled.patch, labelled.note) == ({"metadata": {"labels": {"a": "b"}}}, "")


def test_other_volumes_are_never_changed() -> None:
    refused = decide(volume(driver="other"), Request(labels={"a": "b"}), Facts()).refusal
    assert refused == "is neither an NFS nor a CSI volume: such volumes are listed, never changed"


def test_a_plan_holds_the_whole_request_in_its_own_words() -> None:
    whole: dict[str, Any] = {
        "policy": "Retain",
        "release": "open",
        "labels": {"a": "b"},
        "annotations": {"example.com/x": None},
        "time_annotation": "example.com/at",
        "allow_future_deletion": True,
        "keep_previous": False,
        "content": "quarantine",
    }
    assert Request.of(whole).plain() == whole
    assert Request.of({"policy": "Retain", "keep_previous": True}).plain() == {
        "policy": "Retain",
        "release": None,
        "labels": {},
        "annotations": {},
        "time_annotation": None,
        "allow_future_deletion": False,
        "keep_previous": True,
        "content": "keep",
    }


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("driver", ["nfs", "csi"])
def test_recyclers_matter_to_nfs_volumes_that_are_released(phase: str, driver: str) -> None:
    one = volume(phase=phase, driver=driver)
    needed = driver == "nfs" and phase in ("Released", "Failed")
    assert needs_recyclers(one, Request(release="open")) is needed
    assert not needs_recyclers(one, Request(policy="Retain"))


def test_why_a_policy_is_refused_is_said_in_words() -> None:
    request = Request(policy="Recycle", allow_future_deletion=True)
    released = decide(volume(phase="Released"), request, Facts())
    assert released.refusal == (
        "is Released: policy Recycle would destroy its data now; removing volumes is what "
        "clusterkit.storage.pv_cleanup is for"
    )
    assert decide(volume(phase="Available", driver="csi"), request, Facts()).refusal == (
        "is a CSI volume: those cannot be recycled"
    )
    assert decide(volume(phase="Available", driver="nfs"), request, Facts()).refusal == ""
