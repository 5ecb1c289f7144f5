# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a volume neither serves nor goes: one function a cause, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding, finding
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    few,
    get,
    is_deleting,
    mapping,
    name_of,
    phase_of,
    statuses_of,
    text,
    texts,
    words,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_provisioners import NO_IMAGE
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PROVISIONED_BY

KIND = "PersistentVolume"
PROTECTION = "kubernetes.io/pv-protection"
# csi: external-provisioner; in-tree: volumes of provisioners that are deleted through a CSI driver (KEP-2644).
PROVISIONER_FINALIZERS = (
    "external-provisioner.volume.kubernetes.io/finalizer",
    "kubernetes.io/pv-controller",
)
RECYCLER = "recycler-for-"
DELETING_SECONDS = 30.0

Diagnosis = Callable[[Object, Facts], Optional[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    answers = (next(filter(None, (one(volume, facts) for one in DIAGNOSES)), None) for volume in facts.volumes or ())
    return [one for one in answers if one]


def _policy(volume: Object) -> str:
    return text(volume, "spec", "persistentVolumeReclaimPolicy")


def provisioner_of(volume: Object) -> str:
    """Who deletes it: empty for volumes made by hand."""
    annotation = get(volume, "metadata", "annotations", PROVISIONED_BY)
    return "_".join(annotation.split()) if isinstance(annotation, str) else ""


def _claim(volume: Object) -> str:
    reference = mapping(volume, "spec", "claimRef")
    return f"{text(reference, 'namespace')}/{text(reference, 'name')}" if reference else ""


# It is being deleted -------------------------------------------------------------------------------------


def terminating_in_use(volume: Object, facts: Facts) -> Finding | None:
    """Somebody deleted the volume before its claim."""
    if not is_deleting(volume) or PROTECTION not in texts(volume, "metadata", "finalizers"):
        return None
    reference = mapping(volume, "spec", "claimRef")
    claim = facts.claim_by_name.get((text(reference, "namespace"), text(reference, "name")))
    if phase_of(volume) != "Bound" or (facts.claims is not None and claim is None):
        return None
    return finding(
        KIND,
        volume,
        "volume-terminating-in-use",
        f"Volume {name_of(volume)} is being deleted, but claim {_claim(volume)} is bound to it; "
        f"it goes when that claim is deleted, its data {_fate(volume)}.",
        f"finalizer {PROTECTION}, deleted at {text(volume, 'metadata', 'deletionTimestamp')}",
        check="" if claim is not None else f"whether claim {_claim(volume)} still exists",
    )


def _fate(volume: Object) -> str:
    return {"Delete": "too", "Recycle": "is removed"}.get(_policy(volume), "stays")


def terminating_provisioner(volume: Object, facts: Facts) -> Finding | None:
    finalizers = [one for one in texts(volume, "metadata", "finalizers") if one in PROVISIONER_FINALIZERS]
    if not _is_overdue(volume, facts) or not finalizers:
        return None
    name = provisioner_of(volume) or text(volume, "spec", "csi", "driver")
    state = (facts.provisioners or {}).get(name)
    title = name or "that made it"
    return finding(
        KIND,
        volume,
        "volume-terminating-provisioner",
        f"Volume {name_of(volume)} is held by finalizer {finalizers[0]} until provisioner {title} has deleted its "
        "data; start it, or read its log.",
        f"deleted at {text(volume, 'metadata', 'deletionTimestamp')}; provisioner {title}: {state or 'unknown'}",
        *facts.warnings(volume, "VolumeFailedDelete")[:1],
        check="" if state == "stopped" else f"log of provisioner {title}",
    )


def terminating_finalizer(volume: Object, facts: Facts) -> Finding | None:
    finalizers = texts(volume, "metadata", "finalizers")
    if not _is_overdue(volume, facts) or not finalizers:
        return None
    others = [one for one in finalizers if one != PROTECTION] or finalizers
    return finding(
        KIND,
        volume,
        "volume-terminating-finalizer",
        f"Volume {name_of(volume)} cannot go, since finalizer {few(others[:1])} holds it; "
        "repair the controller that set it, do not remove it by hand.",
        f"finalizers: {', '.join(finalizers)}; deleted at {text(volume, 'metadata', 'deletionTimestamp')}",
    )


def _is_overdue(volume: Object, facts: Facts) -> bool:
    return is_deleting(volume) and facts.age(text(volume, "metadata", "deletionTimestamp")) > DELETING_SECONDS


# Its claim is gone ---------------------------------------------------------------------------------------


def recycler_image(volume: Object, facts: Facts) -> Finding | None:
    """Recycle needs a pod, and the pod an image: registry.k8s.io/debian-base unless the controller manager has another.

    While the pod waits the volume is Released, when its time is over Failed, then it is tried again.
    """
    if _policy(volume) != "Recycle" or phase_of(volume) not in ("Released", "Failed"):
        return None
    pod = next((one for one in facts.pods or () if name_of(one) == RECYCLER + name_of(volume)), None)
    waiting = [one for one in statuses_of(pod) if text(one, "state", "waiting", "reason") in NO_IMAGE]
    told = [one for one in facts.warnings(volume, "RecyclerPod") if "image" in one.lower()]
    if not waiting and not told:
        return None
    return finding(
        KIND,
        volume,
        "recycler-image",
        f"Volume {name_of(volume)} is not recycled, since its recycler pod gets no image; "
        "give the node that image, or set policy Retain and release the volume.",
        *(f"image: {text(one, 'image')}" for one in waiting[:1]),
        *(words(one, "state", "waiting", "message") for one in waiting[:1]),
        *told[:1],
    )


def failed(volume: Object, facts: Facts) -> Finding | None:
    if phase_of(volume) != "Failed" or is_deleting(volume):
        return None
    name, said = name_of(volume), words(volume, "status", "message")
    evidence = (
        f"status.message: {said}" if said else "",
        *facts.warnings(volume, "VolumeFailedDelete", "VolumeFailedRecycle")[:1],
    )
    if _policy(volume) == "Delete" and not provisioner_of(volume):
        return finding(
            KIND,
            volume,
            "volume-failed-no-deleter",
            f"Volume {name} is Failed: policy is Delete, but it was made by hand and nobody can delete it; "
            "set Retain, then release it (playbook reclaim).",
            *evidence,
        )
    if _policy(volume) == "Recycle":
        return finding(
            KIND,
            volume,
            "volume-failed-recycle",
            f"Volume {name} is Failed: the recycler could not empty it; repair what the evidence says, "
            "or set Retain and release it (playbook reclaim).",
            *evidence,
        )
    return finding(
        KIND,
        volume,
        "volume-failed",
        f"Volume {name} is Failed: its deletion went wrong; repair what the evidence says, "
        "or set Retain and release it (playbook reclaim).",
        *evidence,
    )


def released_delete(volume: Object, facts: Facts) -> Finding | None:
    """Its data is destroyed on the day somebody starts a provisioner of that name."""
    name = provisioner_of(volume)
    if phase_of(volume) != "Released" or _policy(volume) != "Delete" or not name or is_deleting(volume):
        return None
    if (facts.provisioners or {}).get(name) != "stopped":
        return None
    return finding(
        KIND,
        volume,
        "released-delete-without-provisioner",
        f"Volume {name_of(volume)} is Released with policy Delete, but provisioner {name} does not run: "
        "starting it destroys the data; to keep it, set Retain.",
        f"{PROVISIONED_BY}: {name}; nobody has renewed its lock for 60 s",
    )


def delete_refused(volume: Object, facts: Facts) -> Finding | None:
    """The provisioner runs, tries, and cannot."""
    messages = facts.warnings(volume, "VolumeFailedDelete")
    if phase_of(volume) != "Released" or _policy(volume) != "Delete" or not messages or is_deleting(volume):
        return None
    return finding(
        KIND,
        volume,
        "volume-delete-failed",
        f"Volume {name_of(volume)} is Released, and provisioner {provisioner_of(volume)} cannot delete it; "
        "repair what the evidence says, or set policy Retain.",
        *messages[:2],
    )


DIAGNOSES: tuple[Diagnosis, ...] = (
    terminating_in_use,
    terminating_provisioner,
    terminating_finalizer,
    recycler_image,
    failed,
    released_delete,
    delete_refused,
)
