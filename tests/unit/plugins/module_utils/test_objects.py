# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API or a pod complains about reaches the reader in its own words, with the object's name."""

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _objects

VOLUME: dict[str, Any] = {"kind": "PersistentVolume", "metadata": {"name": "v1"}}
CLAIM: dict[str, Any] = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "n"}}
# As kubernetes.core 6.6 gave it against a v1.37 API server.
REFUSED = {
    "changed": False,
    "error": {
        "msg": 'Failed to apply object: {"kind":"Status","message":"PersistentVolume \\"v1\\" is invalid: '
        'Forbidden: immutable after creation\\n@@ -5,7 +5,7 @@\\n","reason":"Invalid","code":422}\n',
        "reason": "Unprocessable Entity",
    },
    "result": {},
}


def test_the_refused_object_of_many_is_named() -> None:
    answer = {"changed": True, "result": {"results": [{"changed": True, "result": {}}, REFUSED]}}
    assert _objects.refusals(answer, [CLAIM, VOLUME]) == [
        'PersistentVolume v1: PersistentVolume "v1" is invalid: Forbidden: immutable after creation @@ -5,7 +5,7 @@'
    ]


def test_a_list_of_one_has_another_form() -> None:
    assert len(_objects.refusals(REFUSED, [VOLUME])) == 1
    assert _objects.refusals({"changed": True, "result": {}}, [VOLUME]) == []


def test_an_error_that_is_no_answer_of_the_api_is_shown_as_it_is() -> None:
    answer = {"error": {"msg": 'connection reset by "{peer}"'}}
    assert _objects.refusals(answer, [CLAIM]) == ['PersistentVolumeClaim n/c: connection reset by "{peer}"']


def test_no_answer_at_all_is_no_refusal() -> None:
    assert _objects.refusals({}, [VOLUME, CLAIM]) == []


def pod(uid: str, status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": uid, "namespace": "n", "uid": uid}, "status": status}


def test_a_pod_that_does_not_run_is_explained_by_its_state_and_the_last_warning() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off\npulling image"}
    pods = [
        pod("good", {"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]}),
        pod("done", {"phase": "Succeeded"}),
        pod("pull", {"phase": "Pending", "containerStatuses": [{"ready": False, "state": {"waiting": waiting}}]}),
        pod("mount", {"phase": "Pending"}),
        pod(
            "full",
            {
                "phase": "Pending",
                "conditions": [{"status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}],
            },
        ),
    ]
    events = [
        {"involvedObject": {"uid": "mount"}, "lastTimestamp": "2026-01-01T00:00:02Z", "message": "access denied"},
        {"involvedObject": {"uid": "mount"}, "lastTimestamp": "2026-01-01T00:00:01Z", "message": "older"},
    ]
    assert _objects.pod_troubles(pods, events) == [
        "Pod n/pull: ImagePullBackOff: Back-off pulling image",
        "Pod n/mount: Pending; access denied",
        "Pod n/full: Unschedulable: 0/2 nodes are available",
    ]


def test_no_pod_at_all_is_said() -> None:
    assert "no pod was made" in _objects.pod_troubles([], [])[0]


def test_images_are_found_however_deep_they_lie_and_each_once() -> None:
    pod = {"initContainers": [{"image": "a"}, {"name": "none"}], "containers": [{"image": "b"}, {"image": "a"}]}
    job = {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}
    config_map = {"data": {"image": "c"}}
    assert _objects.images_of([job, None, config_map, {"spec": pod}]) == ["a", "b"]
    assert _objects.images_of([]) == []
