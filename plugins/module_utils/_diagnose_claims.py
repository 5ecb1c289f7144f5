# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a claim is stuck: one function a cause, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose_provisioners, _suggest
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding, finding
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_fit import (
    KIND,
    Wish,
    class_in_words,
    failed_criteria,
    mismatch,
    requested,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    DEFAULT_CLASS,
    NO_PROVISIONER,
    Object,
    Offer,
    class_of,
    entries,
    few,
    full_name,
    get,
    is_deleting,
    mapping,
    name_of,
    namespace_of,
    phase_of,
    size,
    text,
    texts,
)

IN_USE = "kubernetes.io/pvc-protection"
# Conditions of a claim whose CSI driver lets it grow; since 1.37 claims have others too (Unused).
RESIZING = {"Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"}
# A pod that ends takes its claim along within this time.
DELETING_SECONDS = 30.0

Diagnosis = Callable[[Object, Facts], Optional[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    answers = (next(filter(None, (one(claim, facts) for one in DIAGNOSES)), None) for claim in facts.claims or ())
    return [one for one in answers if one]


def _is_pending(claim: Object) -> bool:
    return phase_of(claim) == "Pending" and not is_deleting(claim)


# A volume that is named ----------------------------------------------------------------------------------


def named_volume(claim: Object, facts: Facts) -> Finding | None:
    name = text(claim, "spec", "volumeName")
    if not name or not _is_pending(claim) or facts.volumes is None:
        return None
    volume = facts.volume_by_name.get(name)
    if volume is None:
        return finding(
            KIND,
            claim,
            "volume-missing",
            f"Claim {full_name(claim)} names volume {name}, which does not exist; "
            "make that volume, or make the claim anew without volumeName.",
            f"spec.volumeName: {name}",
        )
    offer = Offer.of(volume)
    taken = None if offer.is_for(claim) else _taken(claim, offer)
    if taken:
        return taken
    if offer.deleting:
        return finding(
            KIND,
            claim,
            "volume-deleting",
            f"Claim {full_name(claim)} names volume {name}, which is being deleted; name another one.",
            f"{name} deleted at {text(volume, 'metadata', 'deletionTimestamp')}",
        )
    failed = [one for one in failed_criteria(Wish.of(claim), offer) if one != "selector"]
    return mismatch(claim, volume, failed) if failed else None


def _taken(claim: Object, offer: Offer) -> Finding | None:
    """The volume would do, but is somebody else's, or was."""
    name, holder, phase = offer.name, offer.holder, offer.phase
    if phase in ("Released", "Failed"):
        return finding(
            KIND,
            claim,
            "volume-released",
            f"Claim {full_name(claim)} waits for volume {name}, which is {phase}, not Available; "
            "if its old data may be reused, release it (playbook reclaim).",
            f"{name} is {phase}, last claimed by {holder}",
            f"reclaim policy: {text(offer.volume, 'spec', 'persistentVolumeReclaimPolicy')}",
        )
    if not holder:
        return None
    if offer.holder_uid:
        return finding(
            KIND,
            claim,
            "volume-taken",
            f"Claim {full_name(claim)} wants volume {name}, which is bound to {holder}; name another volume.",
            f"{name}: spec.claimRef is {holder}",
        )
    return finding(
        KIND,
        claim,
        "volume-reserved",
        f"Claim {full_name(claim)} wants volume {name}, which is reserved for {holder}; "
        "remove its claimRef, or take another volume.",
        f"{name}: spec.claimRef is {holder}, without uid",
    )


def reserved_but_unfit(claim: Object, facts: Facts) -> Finding | None:
    """A volume reserved for the claim must still be large enough and of its mode."""
    if not _is_pending(claim) or text(claim, "spec", "volumeName"):
        return None
    offer = next((one for one in facts.offers if one.is_for(claim)), None)
    if offer is None:
        return None
    failed = [one for one in failed_criteria(Wish.of(claim), offer) if one in ("size", "access-modes", "volume-mode")]
    return mismatch(claim, offer.volume, failed) if failed else None


# A class or its provisioner ------------------------------------------------------------------------------


def waits_for_pod(claim: Object, facts: Facts) -> Finding | None:
    """By design: said only to somebody who asks for this claim."""
    mode = text(facts.class_by_name.get(class_of(claim) or ""), "volumeBindingMode")
    if not _is_pending(claim) or mode != "WaitForFirstConsumer" or text(claim, "spec", "volumeName"):
        return None
    users = facts.pods_by_claim.get((namespace_of(claim), name_of(claim)), [])
    if not facts.asked or users or facts.pods is None:
        return None
    return finding(
        KIND,
        claim,
        "waits-for-pod",
        f"Claim {full_name(claim)} waits for its first pod, since class {class_of(claim)} binds then; start the pod.",
        "volumeBindingMode: WaitForFirstConsumer",
    )


def provisioner(claim: Object, facts: Facts) -> Finding | None:
    storage_class = facts.class_by_name.get(class_of(claim) or "")
    name = text(storage_class, "provisioner")
    if not _is_pending(claim) or not name or name == NO_PROVISIONER or text(claim, "spec", "volumeName"):
        return None
    if text(storage_class, "volumeBindingMode") == "WaitForFirstConsumer":
        # Until a pod is scheduled, nobody has asked the provisioner.
        if not get(claim, "metadata", "annotations", "volume.kubernetes.io/selected-node"):
            return None
    else:
        wish = Wish.of(claim)
        if any(one.is_free and not failed_criteria(wish, one) for one in facts.offers):
            return None  # the controller binds it in a moment
    return _diagnose_provisioners.diagnose(claim, name, facts)


# Volumes made by hand ------------------------------------------------------------------------------------


def static_volume(claim: Object, facts: Facts) -> Finding | None:
    """No provisioner makes a volume, so one that is there would have to fit."""
    if not _is_pending(claim) or text(claim, "spec", "volumeName") or facts.volumes is None or facts.classes is None:
        return None
    name = class_of(claim)
    if name in facts.class_by_name and text(facts.class_by_name[name], "provisioner") != NO_PROVISIONER:
        return None
    if text(facts.class_by_name.get(name or ""), "volumeBindingMode") == "WaitForFirstConsumer":
        return None
    if name is None and any(map(is_default, facts.classes)):
        return None  # the controller gives it that class in a moment
    if any(one.is_for(claim) for one in facts.offers):
        return None
    wish = Wish.of(claim)
    judged = [(failed_criteria(wish, one), one) for one in facts.offers]
    fitting = [one for failed, one in judged if not failed]
    if any(one.is_free for one in fitting):
        return None
    for phases in (("Released", "Failed"), ("Available", "Pending")):
        for offer in fitting:
            taken = _taken(claim, offer) if offer.phase in phases and not offer.deleting else None
            if taken:
                return taken
    return _nearest(wish, judged) or _no_class(claim, judged, facts)


def is_default(storage_class: Any) -> bool:
    return any(text(storage_class, "metadata", "annotations", name) == "true" for name in DEFAULT_CLASS)


def _nearest(wish: Wish, judged: list[tuple[list[str], Offer]]) -> Finding | None:
    """The free volume that the least keeps away; of another class only if the claim's selector means it."""
    free = [
        (failed, one)
        for failed, one in judged
        if failed and one.is_free and ("class" not in failed or (wish.selector and failed == ["class"]))
    ]
    if not free:
        return None
    # Of several that are too small the largest tells most.
    failed, offer = min(
        free, key=lambda one: (len(one[0]), "class" in one[0], one[0], -(one[1].size or 0), one[1].name)
    )
    return mismatch(wish.claim, offer.volume, failed)


def _no_class(claim: Object, judged: list[tuple[list[str], Offer]], facts: Facts) -> Finding | None:
    name, title = class_of(claim), full_name(claim)
    same = [one for failed, one in judged if "class" not in failed]
    others = [f"{one.name} (class {one.storage_class}) would fit" for failed, one in judged if failed == ["class"]]
    if same:
        states = ", ".join(f"{one.name} is {one.phase}" for one in same[:5])
        return finding(
            KIND,
            claim,
            "no-volume-left",
            f"Claim {title} finds no free volume, all of {class_in_words(name)} are in use; make another one.",
            f"volumes of {class_in_words(name)}: {states}",
            *others[:1],
        )
    if name is None:
        return finding(
            KIND,
            claim,
            "no-default-class",
            f"Claim {title} names no class, and no class is the default; "
            "name one in storageClassName, or make one the default.",
            "spec.storageClassName is not set, and no volume without class fits",
            f"classes: {few(sorted(facts.class_by_name), 5) or 'none'}",
            *others[:1],
        )
    if not name:
        return finding(
            KIND,
            claim,
            "no-class",
            f'Claim {title} asks for no class (storageClassName ""), and no volume is without class; '
            "name a class or make such a volume.",
            'spec.storageClassName is ""',
            *others[:1],
        )
    if name in facts.class_by_name:
        return finding(
            KIND,
            claim,
            "no-volume-left",
            f"Claim {title} has class {name}, which makes no volumes, and there is none of it; make one.",
            f"provisioner of class {name}: {NO_PROVISIONER}",
            *others[:1],
        )
    near = _suggest.nearest(name, facts.class_by_name)
    hint = f" ({near}?)" if near else ""
    return finding(
        KIND,
        claim,
        "class-unknown",
        f"Claim {title} asks for class {name}, which does not exist, nor a volume of it; "
        f"correct storageClassName{hint}, or make the class.",
        f"spec.storageClassName: {name}",
        f"classes: {few(sorted(facts.class_by_name), 5) or 'none'}",
        *others[:1],
    )


# Claims that are, or were, bound -------------------------------------------------------------------------


def lost(claim: Object, facts: Facts) -> Finding | None:
    if phase_of(claim) != "Lost" or is_deleting(claim):
        return None
    volume = text(claim, "spec", "volumeName")
    other = Offer.of(facts.volume_by_name.get(volume, {})).holder
    return finding(
        KIND,
        claim,
        "claim-lost",
        f"Claim {full_name(claim)} has lost volume {volume}, now bound to {other}; make the claim anew."
        if other and other != full_name(claim)
        else f"Claim {full_name(claim)} has lost volume {volume}, whose object is gone; "
        "the directory may still be there: make volume and claim anew.",
        *facts.warnings(claim, "ClaimLost", "ClaimMisbound")[:1],
    )


def deleting(claim: Object, facts: Facts) -> Finding | None:
    since = text(claim, "metadata", "deletionTimestamp")
    if not since or facts.age(since) < DELETING_SECONDS or IN_USE not in texts(claim, "metadata", "finalizers"):
        return None
    users = [
        one
        for one in facts.pods_by_claim.get((namespace_of(claim), name_of(claim)), [])
        # Those that no node has yet do not hold it (pvc_protection_controller.go).
        if phase_of(one) not in ("Succeeded", "Failed") and text(one, "spec", "nodeName")
    ]
    if not users:
        return None
    return finding(
        KIND,
        claim,
        "claim-in-use",
        f"Claim {full_name(claim)} is being deleted, but pods use it ({few(map(name_of, users))}); "
        "delete the pods, then it goes.",
        f"finalizer {IN_USE}, deleted at {since}",
    )


def capacity(claim: Object, facts: Facts) -> Finding | None:
    """A static volume that was patched, or a request that nobody works on."""
    volume = facts.volume_by_name.get(text(claim, "spec", "volumeName"))
    if phase_of(claim) != "Bound" or volume is None or not Offer.of(volume).is_for(claim):
        return None
    if RESIZING & {text(one, "type") for one in entries(claim, "status", "conditions")}:
        return None  # somebody is at it
    has, offered, asked = (
        size(claim, "status", "capacity", "storage"),
        size(volume, "spec", "capacity", "storage"),
        requested(claim),
    )
    has_text, offered_text = text(claim, "status", "capacity", "storage"), text(volume, "spec", "capacity", "storage")
    if has is not None and offered is not None and has != offered:
        return finding(
            KIND,
            claim,
            "capacity-disagrees",
            f"Claim {full_name(claim)} says {has_text}, its volume {name_of(volume)} {offered_text}; "
            "run the playbook expand, which makes them equal.",
            f"status.capacity of the claim: {has_text}; spec.capacity of the volume: {offered_text}",
        )
    if has is not None and asked is not None and asked > has and mapping(volume, "spec", "nfs"):
        wanted = text(claim, "spec", "resources", "requests", "storage")
        return finding(
            KIND,
            claim,
            "capacity-disagrees",
            f"Claim {full_name(claim)} asks for {wanted} but has {has_text}, and nobody resizes NFS volumes; "
            "run the playbook expand.",
            f"spec.resources.requests: {wanted}; status.capacity: {has_text}",
        )
    return None


DIAGNOSES: tuple[Diagnosis, ...] = (
    named_volume,
    reserved_but_unfit,
    waits_for_pod,
    static_volume,
    provisioner,
    deleting,
    lost,
    capacity,
)
