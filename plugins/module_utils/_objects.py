# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes objects in words: what they are called, why the API refused them, why a pod does not run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_GOOD_REASONS = {"Completed", "PodInitializing"}


def name_of(item: Mapping[str, Any]) -> str:
    """C(Kind namespace/name) of an object or of the manifest of one."""
    metadata = item.get("metadata") or {}
    namespace = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{item.get('kind', 'object')} {namespace}{metadata.get('name', '')}"


def images_of(items: Any) -> list[str]:
    """The images of all containers in objects, however deep they lie, each once."""
    found: dict[str, None] = {}

    def look(item: Any) -> None:
        if isinstance(item, Mapping):
            for key, value in item.items():
                if key in ("containers", "initContainers") and isinstance(value, list):
                    found.update(dict.fromkeys(one["image"] for one in value if one.get("image")))
                look(value)
        elif isinstance(item, list):
            for one in item:
                look(one)

    look(items)
    return list(found)


def refusals(answer: Mapping[str, Any], sent: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence, with the API's own words, for each object that kubernetes.core.k8s could not bring there.

    C(answer) is the module's result with continue_on_error; it gives one entry for each object, in order, and
    names none of those that failed.
    """
    entries = (answer.get("result") or {}).get("results") if len(sent) != 1 else [answer]
    return [
        f"{name_of(item)}: {_words(entry['error'])}"
        for item, entry in zip(sent, entries or [])
        if isinstance(entry, Mapping) and entry.get("error")
    ]


def _words(error: Mapping[str, Any]) -> str:
    text = str(error.get("msg", ""))
    start = text.find("{")
    if start >= 0:
        try:
            said, _end = json.JSONDecoder().raw_decode(text[start:])
            return " ".join(str(said["message"]).split())
        except (ValueError, KeyError, TypeError):
            pass
    return " ".join(text.split()) or str(error.get("reason", "refused without a reason"))


def pod_troubles(pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each pod that does not run, with the last warning about it."""
    found = pod_states([pod for pod in pods if not _runs(pod)], events)
    return found or ["no pod was made; see the conditions of the Deployment or its ReplicaSet"]


def pod_states(pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each pod: what it does or waits for, with the last warning about it."""
    warnings: dict[str, str] = {}
    for event in sorted(events, key=_time):
        warnings[(event.get("involvedObject") or {}).get("uid", "")] = " ".join(str(event.get("message", "")).split())
    return [
        f"{name_of({'kind': 'Pod', **pod})}: "
        + "; ".join([*_states(pod), *filter(None, [warnings.get(pod["metadata"].get("uid", "?"))])])
        for pod in pods
    ]


def _runs(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    containers = status.get("containerStatuses") or []
    return status.get("phase") == "Running" and bool(containers) and all(one.get("ready") for one in containers)


def _states(pod: Mapping[str, Any]) -> list[str]:
    status = pod.get("status") or {}
    found = [
        f"{one.get('reason', '')}: {one['message']}"
        for one in status.get("conditions") or []
        if one.get("status") != "True" and one.get("message") and one.get("reason") == "Unschedulable"
    ]
    for container in status.get("containerStatuses") or []:
        for state in (container.get("state") or {}).values():
            if state and state.get("reason") and state["reason"] not in _GOOD_REASONS:
                found.append(
                    ": ".join(filter(None, [state["reason"], " ".join(str(state.get("message", "")).split())]))
                )
    return found or [str(status.get("phase", "Unknown"))]


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
