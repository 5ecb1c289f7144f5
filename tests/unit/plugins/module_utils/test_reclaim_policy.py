# SPDX-License-Identifier: GPL-3.0-or-later
"""Each reason for which a policy or a release is refused, in its words, and what has to be asked before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _reclaim
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts, Request, decide
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PREVIOUS_POLICY, PROVISIONED_BY, Volume

CLAIM = ("shop", "a", "c1")
DESTROY = Request(policy="Delete", allow_future_deletion=True)


def volume(**values: Any) -> Volume:
    made = Volume.of(
        {
            "metadata": {"name": "pv", "uid": "u1", "resourceVersion": "7"},
            "spec": {"nfs": {"server": "s", "path": "/a"}, "persistentVolumeReclaimPolicy": "Retain"},
        }
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("values", "request_", "known", "words"),
    [
        ({"phase": "Bound", "deleting": "2026"}, DESTROY, Facts(), "with policy Delete its data would go with it"),
        ({"phase": "Released"}, DESTROY, Facts(), "policy Delete would destroy its data now"),
        ({"phase": "Failed"}, DESTROY, Facts(), "policy Delete would destroy its data now"),
        ({"phase": "Pending"}, DESTROY, Facts(), "is set on Bound and Available volumes only"),
        ({"phase": "Bound", "claim": CLAIM}, DESTROY, Facts(protected=frozenset({"shop"})), 'namespace "shop"'),
        ({"phase": "Bound", "claim": CLAIM}, DESTROY, Facts(), "its claim shop/a does not exist any more"),
        (
            {"phase": "Available", "driver": "csi"},
            dataclasses.replace(DESTROY, policy="Recycle"),
            Facts(),
            "is a CSI volume: those cannot be recycled",
        ),
        ({"phase": "Available", "driver": "other"}, DESTROY, Facts(), "are listed, never changed"),
    ],
)
def test_a_policy_is_refused_with_the_reason(
    values: dict[str, Any], request_: Request, known: Facts, words: str
) -> None:
    decision = decide(volume(**values), request_, known)
    assert words in decision.refusal
    assert not decision.patch


@pytest.mark.parametrize(
    ("values", "request_", "words"),
    [
        ({"phase": "Available"}, Request(release="reserved"), "is Available and names no claim"),
        ({"phase": "Released"}, Request(release="open"), "names no claim: there is nothing to release"),
        (
            {"phase": "Released", "claim": CLAIM, "policy": "Delete", "annotations": {PROVISIONED_BY: "p"}},
            Request(release="open", policy="Retain"),
            "it may be deleting the data at this moment",
        ),
        (
            {"phase": "Released", "claim": CLAIM, "policy": "Delete"},
            Request(release="open"),
            "the old content would go with the next claim",
        ),
    ],
)
def test_a_release_is_refused_with_the_reason(values: dict[str, Any], request_: Request, words: str) -> None:
    one = volume(**values)
    if PROVISIONED_BY in one.annotations:
        one.provisioner, one.provisioner_state = "p", "running"
    assert words in decide(one, request_, Facts()).refusal


def test_what_is_allowed_is_done_and_says_what_follows() -> None:
    bound = decide(volume(phase="Bound", claim=CLAIM), DESTROY, Facts(claims={("shop", "a"): "c1"}))
    assert bound.patch == {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    opened = decide(volume(phase="Released", claim=CLAIM), Request(release="open"), Facts())
    assert opened.patch == {"spec": {"claimRef": None}}
    assert "any claim may take it now" in opened.note
    reserved = decide(volume(phase="Released", claim=CLAIM), Request(release="reserved"), Facts())
    assert reserved.patch == {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
    assert reserved.note.startswith("only a claim shop/a may take it now")
    widened = decide(volume(phase="Available", claim=("shop", "a", None)), Request(release="open"), Facts())
    assert widened.patch == {"spec": {"claimRef": None}}


@pytest.mark.parametrize(
    ("values", "request_", "claim", "recyclers"),
    [
        ({"phase": "Released"}, Request(release="open"), False, True),
        ({"phase": "Released", "claim": CLAIM}, Request(release="open"), True, True),
        ({"phase": "Bound", "claim": CLAIM}, Request(release="open"), False, False),
        ({"phase": "Bound", "claim": CLAIM}, DESTROY, True, False),
        ({"phase": "Bound", "claim": CLAIM, "policy": "Delete"}, DESTROY, False, False),
        ({"phase": "Failed", "claim": CLAIM, "driver": "csi"}, Request(release="open"), True, False),
        ({"phase": "Released", "claim": CLAIM}, Request(labels={"a": "b"}), False, False),
    ],
)
def test_only_what_decides_is_asked_for(
    values: dict[str, Any], request_: Request, claim: bool, recyclers: bool
) -> None:
    assert _reclaim.needs_claim(volume(**values), request_) is claim
    assert _reclaim.needs_recyclers(volume(**values), request_) is recyclers


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), ("a", "a"), (True, "true"), (False, "false"), (7, "7"), (1.5, "1.5")]
)
def test_labels_from_yaml_become_texts(value: Any, text: str | None) -> None:
    assert Request.of({"labels": {"app": value}}).labels == {"app": text}


HOLD = Request(policy="Retain", keep_previous=True)
BACK = Request(policy="Previous", allow_future_deletion=True)


def test_a_policy_is_kept_and_put_back() -> None:
    one = volume(policy="Delete", phase="Bound", claim=CLAIM)
    assert decide(one, HOLD, Facts()).patch == {
        "metadata": {"annotations": {PREVIOUS_POLICY: "Delete"}},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }
    held = volume(phase="Bound", claim=CLAIM, annotations={PREVIOUS_POLICY: "Delete"})
    assert not decide(held, HOLD, Facts()).patch
    assert _reclaim.needs_claim(held, BACK)
    assert decide(held, BACK, Facts(claims={("shop", "a"): "c1"})).patch == {
        "metadata": {"annotations": {PREVIOUS_POLICY: None}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"},
    }


@pytest.mark.parametrize("phase", ["Released", "Failed", "Pending"])
def test_a_policy_that_was_kept_comes_back_on_bound_and_available_volumes_only(phase: str) -> None:
    held = volume(phase=phase, annotations={PREVIOUS_POLICY: "Delete"})
    assert decide(held, BACK, Facts()).refusal


@pytest.mark.parametrize("annotations", [{}, {PREVIOUS_POLICY: "Retain"}, {PREVIOUS_POLICY: "nonsense"}])
def test_where_no_policy_was_kept_nothing_changes(annotations: dict[str, str]) -> None:
    decision = decide(volume(phase="Bound", annotations=annotations), BACK, Facts())
    assert (decision.patch, decision.refusal) == ({}, "")


def test_who_decides_anew_ends_what_an_upgrade_has_kept() -> None:
    held = volume(phase="Bound", annotations={PREVIOUS_POLICY: "Delete"})
    assert decide(held, Request(policy="Retain"), Facts()).patch == {
        "metadata": {"annotations": {PREVIOUS_POLICY: None}}
    }
