# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a volume fits a claim, as the controller decides it, and what keeps the two apart, in words.

See FindMatchingVolume and checkVolumeSatisfyClaim (Kubernetes 1.37).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Finding, finding
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    Offer,
    class_of,
    few,
    full_name,
    get,
    labels_in_words,
    mapping,
    name_of,
    selects,
    size,
    text,
    texts,
)

KIND = "PersistentVolumeClaim"


@dataclass(frozen=True)
class Wish:
    """A claim, by what it wants of a volume."""

    claim: Object
    size: int | None
    access_modes: frozenset[str]
    mode: str
    storage_class: str
    selector: Any

    @classmethod
    def of(cls, claim: Object) -> Wish:
        return cls(
            claim,
            requested(claim),
            frozenset(texts(claim, "spec", "accessModes")),
            text(claim, "spec", "volumeMode") or "Filesystem",
            class_of(claim) or "",
            get(claim, "spec", "selector"),
        )


def failed_criteria(wish: Wish, offer: Offer) -> list[str]:
    """Which of size, access modes, volume mode, class and selector keep the claim from the volume."""
    failed = []
    if wish.size is not None and offer.size is not None and offer.size < wish.size:
        failed.append("size")
    if not wish.access_modes <= offer.access_modes:
        failed.append("access-modes")
    if wish.mode != offer.mode:
        failed.append("volume-mode")
    if wish.storage_class != offer.storage_class:
        failed.append("class")
    if wish.selector and not selects(wish.selector, offer.labels):
        failed.append("selector")
    return failed


def requested(claim: Object) -> int | None:
    return size(claim, "spec", "resources", "requests", "storage")


# In words ------------------------------------------------------------------------------------------------


def mismatch(claim: Object, volume: Object, failed: list[str]) -> Finding:
    """Say which criterion keeps the claim from the volume that is nearest."""
    title, name = full_name(claim), name_of(volume)
    evidence = [_compare(claim, volume, one) for one in failed]
    if len(failed) > 1:
        return finding(
            KIND,
            claim,
            "volume-mismatch",
            f"Claim {title} fits no free volume, {name} differs least ({', '.join(failed)}); "
            "make the claim or the volume fit.",
            *evidence,
        )
    sentence = {
        "size": f"Claim {title} asks for {text(claim, 'spec', 'resources', 'requests', 'storage')}, but volume {name} "
        f"has {text(volume, 'spec', 'capacity', 'storage')}; ask for less, or enlarge the volume.",
        "access-modes": f"Claim {title} asks for {few(texts(claim, 'spec', 'accessModes'))}, which volume {name} "
        "does not offer; add the mode to the volume, or change the claim.",
        "volume-mode": f"Claim {title} and volume {name} differ in volumeMode (Filesystem, Block); "
        "make the claim anew with that of the volume.",
        "class": f"Claim {title} has {class_in_words(class_of(claim))}, but volume {name} "
        f"{class_in_words(class_of(volume))}; give both the same storageClassName.",
        "selector": f"Claim {title} selects {_selector_in_words(claim)}, which no free volume has; "
        f"label {name}, or correct the selector.",
    }[failed[0]]
    return finding(KIND, claim, f"volume-mismatch-{failed[0]}", sentence, *evidence)


def _selector_in_words(claim: Object) -> str:
    labels = mapping(claim, "spec", "selector", "matchLabels")
    return f"labels {labels_in_words(labels)}" if labels else "labels by expressions"


def _compare(claim: Object, volume: Object, criterion: str) -> str:
    name = name_of(volume)
    if criterion == "size":
        wanted, offered = (
            text(claim, "spec", "resources", "requests", "storage"),
            text(volume, "spec", "capacity", "storage"),
        )
    elif criterion == "access-modes":
        wanted, offered = (", ".join(texts(one, "spec", "accessModes")) or "none" for one in (claim, volume))
    elif criterion == "volume-mode":
        wanted, offered = (text(one, "spec", "volumeMode") or "Filesystem" for one in (claim, volume))
    elif criterion == "class":
        wanted, offered = (class_of(one) or "none" for one in (claim, volume))
    else:
        wanted = str(dict(mapping(claim, "spec", "selector")))
        offered = str(dict(mapping(volume, "metadata", "labels")))
    return f"{criterion}: the claim asks for {wanted}, {name} has {offered}"


def class_in_words(name: str | None) -> str:
    return f"class {name}" if name else "no class"
