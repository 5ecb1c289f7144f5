# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From listings and a request to a plan: the one place where it is decided what is done later, on whichever host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup_plan,
    _classify,
    _cleanup,
    _directory_set,
    _expand_run,
    _listing,
    _plan,
    _pods,
    _reclaim_content,
    _reclaim_plan,
    _recover,
    _recover_facts,
    _restore_plan,
    _trash_plan,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Use
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Decision, Facts, Request, decide
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap

# Their steps concern directories as well, and count by what they are about.
_OF_DIRECTORIES = ("cleanup", "undelete", "purge")


@dataclass
class Planned:
    """A plan, and what is said besides. C(measure): by host, the directories whose size is wanted."""

    plan: dict[str, Any]
    measure: dict[str, list[str]] = field(default_factory=dict)
    report: Iterable[dict[str, Any]] = ()


def plan(given: Mapping[str, Any]) -> Planned:
    """Raises ValueError when input or request make no sense, or when more would be changed than is allowed."""
    action, total = given["action"], 0
    measure: dict[str, list[str]] = {}
    report: Iterable[dict[str, Any]] = ()
    if action == "recover" and _plan.needs_total(given["max_changes"]):
        raise ValueError("max_changes: for recover give a count: its steps concern mounts and pods, not volumes")
    if given["plan"]:
        found = _plan.load(given["plan"], action)
        if _plan.needs_total(given["max_changes"]):
            raise ValueError("max_changes: percent need the listing; a plan that is there was judged when it was made")
    elif action == "recover":
        if not given["recover"]:
            raise ValueError("recover: is needed, with what the nodes told")
        hosts = _recover_facts.load_hosts(given["recover"]["nodes"])
        found = _recover.plan(hosts, _pods.load(given["listing"]), given["recover"])
    elif action in _OF_DIRECTORIES:
        if not given[action]:
            raise ValueError(f"{action}: is needed, with the directories of the servers")
        listing = _listing.load(given["listing"])
        total = listing.total
        sets = _sets(given[action]["directories"])
        if not sets:
            raise ValueError(f"{action}.directories is empty: there is nothing to judge")
        if action == "cleanup":
            found, measure, report = cleanup(sets, listing, given["cleanup"], given["host"])
        else:
            make = _trash_plan.undelete if action == "undelete" else _trash_plan.purge
            found = make(sets, listing, given[action], host=given["host"])
    else:
        listing = _listing.load(given["listing"])
        if action in NEED_REQUEST and not given[action]:
            raise ValueError(f"{action}: is needed, with what is wanted")
        found, total = MAKERS[action](listing, given[action] or {}, given["host"]), listing.total
    what = {"recover": "mounts and pods", "cleanup": "volumes and directories", "purge": "directories"}
    changes = found.get("changes", len(found["steps"]))
    problem = _plan.over_limit(changes, given["max_changes"], total, what.get(action, "volumes"))
    if problem:
        raise ValueError(problem)
    return Planned(found, measure, report)


def parents(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """By host, the directories to be listed besides the roots of shares. Raises ValueError."""
    listing = _listing.load(given["listing"])
    _cleanup.check_listing(listing)
    others = [_listing.load(path) for path in given["cleanup"]["other_listings"]]
    volumes = [one for each in (listing, *others) for one in each.volumes]
    return _classify.parents_of(volumes, ServerMap(given["cleanup"]["storage_servers"]))


def _sets(files: Sequence[Mapping[str, Any]]) -> list[_directory_set.DirectorySet]:
    return [_directory_set.load(one["host"], one["path"]) for one in files]


def cleanup(
    sets: Sequence[_directory_set.DirectorySet], listing: _listing.Listing, given: Mapping[str, Any], host: str
) -> tuple[dict[str, Any], dict[str, list[str]], Iterator[dict[str, Any]]]:
    found, classified, made = _cleanup.plan(
        sets,
        listing,
        given,
        others=[_listing.load(path) for path in given["other_listings"]],
        mounts=list(_mounts(given["mounts"])) if given["mounts"] else None,
        sizes=_sets(given["sizes"]),
        host=host,
    )
    measure: dict[str, list[str]] = {}
    for step in made.steps:
        if "size_complete" in step:
            measure.setdefault(step.get("server_host") or step["host"], []).append(step["directory"])
    return found, measure, _cleanup.report(classified)


def _mounts(path: str) -> Iterator[Use]:
    """What hosts mount, from a file with a line of JSON for each. Raises ValueError."""
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                host = json.loads(line)
                if host["problem"]:
                    raise ValueError(f"{host['name']} did not tell what it mounts: {host['problem']}")
                for source in host["sources"]:
                    server, separator, directory = source.partition(":/")
                    if separator:
                        yield Use(f"host {host['name']}", server, f"/{directory}")
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"mounts: {path}: line {number} is no host: {error!r}") from error


def reclaim(listing: _listing.Listing, given: Mapping[str, Any], host: str) -> dict[str, Any]:
    if listing.facts is None:
        raise ValueError("the listing does not say what a plan needs; make it with plan_for: reclaim")
    if listing.complete:
        raise ValueError(
            "the listing is of all volumes, and no selection never means all; give pv_info a selection, or names: "
            '["*"] if all are meant'
        )
    request = Request.of(given)
    listed = frozenset(given.get("protected_namespaces") or [])
    facts = Facts(listing.facts.protected | listed, listing.facts.claims, listing.facts.recycled)
    decisions = [decide(volume, request, facts) for volume in listing.volumes]
    contents = None
    if request.content == "quarantine":
        contents = _contents(decisions, listing, given)
    return _reclaim_plan.plan(
        decisions,
        request,
        cluster_uid=listing.cluster_uid,
        listed_at=listing.listed_at,
        host=host,
        contents=contents,
    )


def _contents(
    decisions: Sequence[Decision], listing: _listing.Listing, given: Mapping[str, Any]
) -> _reclaim_content.Contents:
    for name in ("volumes", "directories", "storage_servers"):
        if not given.get(name):
            raise ValueError(f"{name}: content: quarantine needs it, to know whose content that is")
    whole = _listing.load(given["volumes"])
    if whole.cluster_uid != listing.cluster_uid:
        raise ValueError(f"volumes: {given['volumes']} is of another cluster ({whole.cluster_uid})")
    return _reclaim_content.find(decisions, _sets(given["directories"]), whole, given["storage_servers"])


def expand(listing: _listing.Listing, given: Mapping[str, Any], host: str) -> dict[str, Any]:
    if not listing.complete:
        raise ValueError("the listing is not of all volumes; make it without a selection, and with plan_for: expand")
    cluster = _expand_run.Cluster({one.name: one for one in listing.volumes}, listing.claims, listing.classes)
    allow = bool(given.get("allow_delete_policy"))
    growths, missing = _expand_run.decide_all(cluster, given, allow)
    return _expand_run.plan(
        growths,
        missing,
        {"allow_delete_policy": allow},
        cluster_uid=listing.cluster_uid,
        listed_at=listing.listed_at,
        host=host,
    )


MAKERS = {"reclaim": reclaim, "expand": expand, "backup": _backup_plan.plan, "restore": _restore_plan.plan}
NEED_REQUEST = ("backup", "restore")
