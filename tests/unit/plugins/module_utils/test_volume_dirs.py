# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments, plans and steps: what is wrong is said before anything is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _volume_dirs
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import read_request, with_objects
from hypothesis import given
from hypothesis import strategies as st

SHARE = "/srv/k8s"
STEP = {"id": "1", "share": SHARE, "directory": f"{SHARE}/a", "precondition": {"device": 1, "inode": 2}}
VOLUME = {"name": "pvc-1", "uid": "u-1"}


def arguments(state: str = "quarantined", **more: Any) -> dict[str, Any]:
    checked = ArgumentSpecValidator(_volume_dirs.ARGUMENTS).validate({"state": state, "shares": [SHARE], **more})
    assert not checked.error_messages, checked.error_messages
    given: dict[str, Any] = checked.validated_parameters
    return given


def plan(folder: Path, *steps: Any, **more: Any) -> str:
    made = {"schema": 1, "action": "cleanup", "steps": list(steps), **more}
    path = folder / "plan.json"
    path.write_text(json.dumps({"id": _plan.hash_of(made), **made}))
    return str(path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "state quarantined needs steps or a plan"),
        ({"state": "present"}, "needs the uids of the clusters"),
        ({"state": "present", "clusters": ["a/b"]}, "'a/b' is no uid"),
        ({"state": "present", "clusters": ["a"], "steps": [STEP]}, "takes shares and clusters, no steps"),
        ({"steps": [STEP], "shares": []}, "no share is given"),
        ({"steps": [STEP], "shares": [SHARE, "/"]}, r"shares\[1\]: the root of the file system is no share"),
        ({"steps": [STEP], "shares": [SHARE, "srv"]}, r"shares\[1\]: the path 'srv' is not absolute"),
        ({"steps": [{**STEP, "share": "/srv/x"}]}, r"steps\[0\].share: '/srv/x' is none of shares"),
        ({"steps": [STEP, {**STEP, "directory": SHARE}]}, r"steps\[1\].directory: /srv/k8s is the root of the share"),
        ({"steps": [{**STEP, "scope": "content"}]}, r"steps\[0\].volume is missing: only a volume's content"),
        ({"steps": [{**STEP, "volume": {"name": "", "uid": "a"}}]}, "has no name"),
        ({"steps": [{**STEP, "volume": {"name": "x", "uid": "a b"}}]}, r"steps\[0\].volume.uid: 'a b' is no uid"),
        ({"steps": [STEP], "only": ["1", "2"]}, 'only: "2" is no step with state quarantined'),
        ({"steps": [STEP], "retention": "soon"}, "retention: "),
        ({"steps": [STEP], "controller_time": "noon"}, "controller_time: "),
        ({"state": "intended", "steps": [{**STEP, "volume": VOLUME}]}, "the PersistentVolume itself is missing"),
        (
            {"state": "intended", "steps": [{**STEP, "volume": VOLUME, "objects": {"volume": {}}}]},
            "has uid None; expected 'u-1'",
        ),
        ({"state": "restored", "steps": [STEP]}, r"steps\[0\].entry is missing: state restored needs it"),
        ({"state": "closed", "steps": [STEP]}, r"steps\[0\].volume is missing"),
    ],
)  # fmt: skip
def test_wrong_arguments(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_request(arguments(**given))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"^30 problems, nothing was changed: "):
        read_request(arguments(steps=[{**STEP, "directory": f"{SHARE}/.."}] * 30))


def test_right_arguments() -> None:
    request = read_request(
        arguments(
            "purged",
            steps=[{**STEP, "entry": "x"}],
            retention="2d12h",
            controller_time="2026-03-01T12:00:00Z",
            lease_owner={"controller": "c", "boot_id": "b", "pid": 7},
            keep=["/srv/k8s/b"],
        )
    )
    assert (request.retention, request.controller_time) == (60 * 3600, 1772366400.0)
    assert request.owner is not None and request.owner.pid == 7
    assert (request.steps[0].item, request.steps[0].precondition) == (f"{SHARE}/a", (1, 2))
    assert read_request(arguments("purged", steps=[])).steps == []
    assert read_request(arguments("purged", steps=[{**STEP, "entry": "x"}], only=[])).steps == []


def test_plan(tmp_path: Path) -> None:
    mine = {**STEP, "module": "volume_dirs", "state": "quarantined"}
    others = [{**mine, "id": "2", "state": "intended"}, {**mine, "id": "3", "module": "pv_cleanup"}]
    path = plan(tmp_path, mine, *others, {**mine, "id": "4"}, cluster_uid="c1", keep=[f"{SHARE}/z"])
    request = read_request(arguments(plan=path))
    assert [step.id for step in request.steps] == ["1", "4"]
    assert (request.cluster_uid, request.keep) == ("c1", [f"{SHARE}/z"])
    assert request.plan_id == json.loads(Path(path).read_text())["id"]
    assert [step.id for step in read_request(arguments(plan=path, only=["4"])).steps] == ["4"]
    with pytest.raises(ValueError, match='"2" is no step with state quarantined'):
        read_request(arguments(plan=path, only=["2"]))
    with pytest.raises(ValueError, match="is for another cluster"):
        read_request(arguments(plan=path, cluster_uid="c2"))
    with pytest.raises(ValueError, match="cannot both be given"):
        read_request(arguments(plan=path, steps=[STEP]))
    bad = plan(tmp_path, {**mine, "scope": "all", "precondition": {"device": "1", "inode": True}, "volume": "pv"})
    with pytest.raises(ValueError) as caught:
        read_request(arguments(plan=bad))
    for words in ("plan.steps[0].scope: 'all' is neither", "plan.steps[0].precondition", "'pv' has no name"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[]", "is no plan"),
        ('{"steps": {}}', "is no plan"),
        ('{"steps": [], "schema": 2}', "has schema 2; expected 1"),
        ('{"steps": [], "schema": 1}', "was edited"),
        ('{"steps": [], "schema": 1, "id": "x"}', "was edited"),
    ],
)
def test_what_is_no_plan(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_request(arguments(plan=str(tmp_path / "plan.json")))


def test_plan_that_is_missing_or_odd(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_request(arguments(plan=str(tmp_path / "missing")))
    for more in ({"keep": "x"}, {}):
        path = plan(tmp_path, *([] if more else ["x"]), **more)
        with pytest.raises(ValueError, match="steps and keep have to be lists"):
            read_request(arguments(plan=path))


def test_objects_of_a_file(tmp_path: Path) -> None:
    steps = read_request(
        arguments("intended", steps=[{**STEP, "volume": {**VOLUME, "uid": uid}} for uid in ("u-1", "u-2")], objects="x")
    ).steps
    lines = [{"volume": {"metadata": {"uid": uid}}, "claim": None} for uid in ("u-2", "u-3")]
    path = tmp_path / "objects.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [(step.volume, step.objects) for step in with_objects(steps, str(path))]
    assert found == [({"name": "pvc-1", "uid": "u-2"}, lines[0]), ({"name": "pvc-1", "uid": "u-1"}, None)]
    path.write_text('{"volume": {}}\n')
    with pytest.raises(ValueError, match="line 1: no objects of a volume"):
        list(with_objects(steps, str(path)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just(SHARE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "uid", "inode", "x"]), inner),
    max_leaves=5,
)


@given(
    st.sampled_from([state for state in _volume_dirs.STATES if state != "present"]),
    st.dictionaries(st.sampled_from(list(_volume_dirs.STEP_ARGUMENTS)), JSON),
)
def test_any_step_is_right_or_named(state: str, more: dict[str, Any]) -> None:
    """A plan is a file: whatever is in a step, it is no traceback."""
    for step in ({**STEP, **more}, more):
        problems = list(_volume_dirs.step_problems("plan.steps[0]", step, state, [SHARE], False))
        assert all(problem.startswith("plan.steps[0].") for problem in problems)
        if not problems:
            _volume_dirs._step(0, step)
