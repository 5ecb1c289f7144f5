# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a claim gets no volume from the provisioner of its class: one function a cause, in the order of the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Optional

from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding, finding
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    entries,
    full_name,
    get,
    mapping,
    name_of,
    namespace_of,
    number,
    selects,
    statuses_of,
    text,
    words,
)

# A provisioner makes a directory and an object: seconds, unless something is wrong.
PROVISIONING_SECONDS = 60.0
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
# Kubernetes 1.20 leaves metadata.selfLink empty, 1.24 took the feature gate away
# (kubernetes/enhancements#1164); the library of the old provisioner needs it.
SELF_LINK = "selfLink was empty"
_OLD_IMAGE = re.compile(r"(?:^|/)nfs-client-provisioner(?:[:@]|$)")
_FORBIDDEN = re.compile(
    r'is forbidden: User "system:serviceaccount:[^"]*" cannot (\w+) resource "([\w./-]+)"', re.ASCII
)

Diagnosis = Callable[[Object, str, Facts], Optional[Finding]]


def diagnose(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    """C(claim) waits for C(provisioner)."""
    found = (one(claim, provisioner, facts) for one in DIAGNOSES)
    return next((one for one in found if one), None)


# Its controller ------------------------------------------------------------------------------------------


def controllers_of(provisioner: str, facts: Facts) -> list[Object]:
    return facts.controllers.get(provisioner, [])


def pods_of(controller: Object, facts: Facts) -> list[Object]:
    return [
        one
        for one in facts.pods_by_namespace.get(namespace_of(controller), ())
        if selects(get(controller, "spec", "selector"), mapping(one, "metadata", "labels"))
    ]


def _pods(provisioner: str, facts: Facts) -> Iterator[Object]:
    for controller in controllers_of(provisioner, facts):
        yield from pods_of(controller, facts)


def logs_of(pod: Object, facts: Facts) -> Iterator[str]:
    """Logs, and what is left of them in the states of the containers."""
    key = (namespace_of(pod), name_of(pod))
    for (namespace, name, _container), lines in sorted(facts.logs.items()):
        if (namespace, name) == key:
            yield from lines.splitlines()
    for status in statuses_of(pod):
        for state in ("state", "lastState"):
            message = get(status, state, "terminated", "message")
            if isinstance(message, str):
                yield from message.splitlines()


# Diagnoses -----------------------------------------------------------------------------------------------


def self_link(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    seen = [line for pod in _pods(provisioner, facts) for line in logs_of(pod, facts) if SELF_LINK in line]
    images = [
        text(container, "image")
        for one in controllers_of(provisioner, facts)
        for container in entries(one, "spec", "template", "spec", "containers")
        if _OLD_IMAGE.search(text(container, "image"))
    ]
    if not seen and not images:
        return None
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioner-selflink",
        f"Claim {full_name(claim)}: the image of provisioner {provisioner} needs selfLink, gone since Kubernetes 1.20, "
        "and no feature gate restores it; use nfs-subdir-external-provisioner.",
        *(f"log: {' '.join(line.split())}" for line in seen[:1]),
        *(f"image: {image}" for image in images[:1]),
        check="" if seen else f'log of provisioner {provisioner}: "{SELF_LINK}"',
    )


def without_rights(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    logged = [
        (f"{found[1]} {found[2]}", line)
        for pod in _pods(provisioner, facts)
        for line in logs_of(pod, facts)
        for found in [_FORBIDDEN.search(line)]
        if found
    ]
    denied = list(facts.denied.get(provisioner) or ())
    missing = list(dict.fromkeys([*denied, *(right for right, _line in logged)]))
    if not missing:
        return None
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioner-without-rights",
        f"Claim {full_name(claim)}: provisioner {provisioner} may not {missing[0]}; "
        "give its service account the missing rights (RBAC).",
        *(f"not allowed: {right}" for right in missing),
        *(f"log: {' '.join(line.split())}" for _right, line in logged[:1]),
        # A log may tell of yesterday.
        check="" if denied else f"whether the log of provisioner {provisioner} still says so",
    )


def _first(provisioner: str, facts: Facts, is_meant: Callable[[Object], bool]) -> tuple[Object, Object] | None:
    """A pod of the provisioner, and the state of that of its containers that is meant."""
    states = ((pod, status) for pod in _pods(provisioner, facts) for status in statuses_of(pod))
    return next((one for one in states if is_meant(one[1])), None)


def _has_no_image(status: Object) -> bool:
    return text(status, "state", "waiting", "reason") in NO_IMAGE


def _crashes(status: Object) -> bool:
    """Between two tries kubelet tells of the last one for a while, before it says how long it waits (seen of 1.37)."""
    if text(status, "state", "waiting", "reason") == "CrashLoopBackOff":
        return True
    return bool(number(status, "restartCount") and number(status, "state", "terminated", "exitCode"))


def crash_looping(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    found = _first(provisioner, facts, _crashes)
    if not found:
        return None
    pod, status = found
    lines = [" ".join(line.split()) for line in logs_of(pod, facts) if line.strip()]
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioner-crash-looping",
        f"Claim {full_name(claim)}: pod {full_name(pod)} of provisioner {provisioner} crashes again and again; "
        "read its log and repair what it says.",
        f"restarts: {number(status, 'restartCount') or 0}",
        *(f"log: {line}" for line in lines[-3:]),
    )


def image_not_pulled(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    found = _first(provisioner, facts, _has_no_image)
    if not found:
        return None
    pod, status = found
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioner-image-not-pulled",
        f"Claim {full_name(claim)}: the node cannot pull the image of provisioner pod {full_name(pod)}; "
        "correct the image or k8s_storage_image_registry.",
        f"image: {text(status, 'image')}",
        words(status, "state", "waiting", "message"),
    )


def not_running(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    name, controllers = full_name(claim), controllers_of(provisioner, facts)
    ready = any(number(one, "status", "readyReplicas") for one in controllers)
    if facts.provisioners is None:
        # Its lock cannot be read: what there is of it must do.
        if ready or facts.deployments is None or facts.statefulsets is None:
            return None
        check, lock = f"whether the lock (Lease or Endpoints) of {provisioner} is renewed", ""
    elif facts.provisioners.get(provisioner) == "stopped":
        known = controllers or (facts.deployments is not None and facts.statefulsets is not None)
        check = "" if known else f"whether a Deployment has PROVISIONER_NAME={provisioner}"
        lock = f"nobody has renewed the lock of {provisioner} for 60 s"
    else:
        return None
    if not controllers:
        return finding(
            "PersistentVolumeClaim",
            claim,
            "provisioner-not-running",
            f"Claim {name} waits for provisioner {provisioner}, which no Deployment runs; "
            "deploy it, or correct the provisioner of the class.",
            lock,
            check=check,
        )
    one = controllers[0]
    repair = "scale it up" if number(one, "spec", "replicas") == 0 else "see why its pod is not ready"
    state = "its lock is not renewed" if ready else f"{full_name(one)} has no ready pod"
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioner-not-running",
        f"Claim {name} waits for provisioner {provisioner}, but {state}; {repair}.",
        lock,
        f"{full_name(one)}: replicas {number(one, 'spec', 'replicas')}, "
        f"ready {number(one, 'status', 'readyReplicas') or 0}",
        *(message for pod in pods_of(one, facts) for message in _messages(pod, facts)[:1]),
        check=check,
    )


def _messages(pod: Object, facts: Facts) -> list[str]:
    scheduled = [words(one, "message") for one in entries(pod, "status", "conditions") if text(one, "status") != "True"]
    told = [*facts.warnings(pod, "FailedMount", "FailedScheduling", "Failed", "FailedCreate"), *filter(None, scheduled)]
    return [f"{full_name(pod)}: {one}" for one in told]


def refused(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    """The provisioner has said itself what is wrong."""
    messages = facts.warnings(claim, "ProvisioningFailed")
    if not messages:
        return None
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioning-failed",
        f"Claim {full_name(claim)}: provisioner {provisioner} cannot make its volume; the evidence has its own words, "
        "repair what they name.",
        *messages[:3],
    )


def slow(claim: Object, provisioner: str, facts: Facts) -> Finding | None:
    """It runs, says nothing, and makes no volume: its service account, its name or its share may be wrong."""
    states = facts.provisioners or {}
    if facts.age(text(claim, "metadata", "creationTimestamp")) < PROVISIONING_SECONDS:
        return None
    state = states.get(provisioner, "unknown")
    return finding(
        "PersistentVolumeClaim",
        claim,
        "provisioning-slow",
        f"Claim {full_name(claim)} waits for provisioner {provisioner} ({state}) for over a minute; "
        "read the log of the provisioner.",
        f"since {text(claim, 'metadata', 'creationTimestamp')}",
        check=f"log of provisioner {provisioner}: whether it saw the claim, and what kept it from making the volume",
    )


DIAGNOSES: tuple[Diagnosis, ...] = (
    self_link,
    without_rights,
    image_not_pulled,
    crash_looping,
    not_running,
    refused,
    slow,
)
