# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be cleaned up, as a plan: pure.

Volumes that were given back long enough ago, and only with a word of their own orphans, archives and volumes without a
directory. A plan also finishes or undoes what an earlier run has left: its open intents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Classified, Rules, Use
from ansible_collections.clusterkit.storage.plugins.module_utils._classify import classify
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup_steps import (
    MISSING,
    Decisions,
    Planner,
    words_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap

METHODS = ["quarantine", "provisioner"]
_FILES: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"host": {"type": "str", "required": True}, "path": {"type": "path", "required": True}},
}
_LIST: dict[str, Any] = {"type": "list", "elements": "str", "default": []}

ARGUMENTS: dict[str, Any] = {
    "directories": _FILES,
    "sizes": _FILES,
    "other_listings": {"type": "list", "elements": "path", "default": []},
    "mounts": {"type": "path"},
    "storage_servers": {"type": "list", "elements": "dict", "required": True},
    "method": {"type": "str", "choices": METHODS, "default": "quarantine"},
    "names": _LIST,
    "namespaces": _LIST,
    "storage_classes": _LIST,
    "released_for": {"type": "str", "default": "7d"},
    "exclude": _LIST,
    "exclude_namespaces": _LIST,
    "exclude_storage_classes": _LIST,
    "orphans": {"type": "bool", "default": False},
    "archives": {"type": "bool", "default": False},
    "missing": {"type": "bool", "default": False},
    "max_bytes": {"type": "str"},
    "foreign_servers": _LIST,
    "allow_mounted_above": {"type": "bool", "default": False},
    "protected_namespaces": _LIST,
}


def plan(
    sets: Sequence[DirectorySet],
    listing: Listing,
    given: Mapping[str, Any],
    *,
    others: Sequence[Listing] = (),
    mounts: Sequence[Use] | None = None,
    sizes: Sequence[DirectorySet] = (),
    host: str = "localhost",
) -> tuple[dict[str, Any], Classified, Decisions]:
    """Raises ValueError when the listing is not of all volumes, or the request makes no sense."""
    check_listing(listing)
    servers = ServerMap(given["storage_servers"])
    uses = None if mounts is None else [*pod_uses([listing, *others]), *mounts]
    rules = Rules(given["exclude"], given["foreign_servers"], given["allow_mounted_above"])
    classified = classify(sets, [listing, *others], servers, uses, rules)
    made = Planner(sets, listing, given, classified, _sizes(sizes)).run()
    if given["max_bytes"]:
        _check_bytes(made, given["max_bytes"])
    planned = {
        (step.get("server_host") or step["host"], step["directory"])
        for step in made.steps
        if step.get("method") != MISSING
    }
    kept = (path for one, paths in classified.keep.items() for path in paths if (one, path) not in planned)
    told = ("method", "released_for", "orphans", "archives", "missing", "storage_servers")
    request = {key: given[key] for key in told}
    found = _plan.make(
        "cleanup",
        cluster_uid=listing.cluster_uid,
        listed_at=listing.listed_at,
        request=request,
        steps=made.steps,
        refusals=made.refusals,
        unchanged=len(classified.directories) - sum(1 for one in made.steps if one["module"] == "volume_dirs"),
        host=host,
        more={
            "keep": sorted(dict.fromkeys(kept)),  # of each host in order already
            "classes": dict(sorted(Counter(one.kind for one in classified.directories).items())),
            "changes": made.changes,
            "bytes": made.bytes,
            "notes": sorted(made.notes, key=lambda one: (one["item"], one["reason"])),
        },
    )
    return found, classified, made


def check_listing(listing: Listing) -> None:
    if listing.facts is None or listing.uses is None:
        raise ValueError("the listing does not say what a plan needs; make it with plan_for: cleanup")
    if not listing.complete:
        raise ValueError(
            "the listing is not of all volumes: what is not in it would pass for unused; make it without a selection"
        )


def pod_uses(listings: Iterable[Listing]) -> list[Use]:
    """Who mounts NFS in clusters without a volume; provisioners, which mount the root of their share, left out."""
    return [
        Use(one["who"], one["server"] or "", one["path"])
        for listing in listings
        for one in listing.uses or ()
        if not one["provisioner"]
    ]


def _sizes(sets: Sequence[DirectorySet]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (one.host, record["path"]): record
        for one in sets
        for record in one.directories
        if record.get("size") is not None
    }


def _check_bytes(made: Decisions, max_bytes: str) -> None:
    allowed = _quantity.to_bytes(max_bytes)
    unknown = [step["item"] for step in made.steps if step.get("size_complete") is False]
    if unknown:
        raise ValueError(
            f"max_bytes is {max_bytes}, but how large {unknown[0]} is was not measured to its end; nothing was done"
        )
    if made.bytes > allowed:
        raise ValueError(f"{words_of(made.bytes)} would be moved, but max_bytes is {max_bytes}, so nothing was done")


def report(classified: Classified) -> Iterator[dict[str, Any]]:
    """Each directory with what it is, and the volumes that are missing."""
    for one in classified.directories:
        yield {
            "host": one.host,
            "path": one.path,
            "class": one.kind,
            "volume": one.volume.name if one.volume else None,
            "reason": one.reason,
        }
    for volume, place in classified.missing:
        yield {
            "host": place.host,
            "path": place.directory,
            "class": "missing",
            "volume": volume.name,
            "reason": classified.doubts[volume.uid] or "the directory is not there",
        }
