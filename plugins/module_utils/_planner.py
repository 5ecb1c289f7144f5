# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From listings and a request to a plan: the one place where it is decided what is done later, on whichever host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup_plan,
    _expand_run,
    _listing,
    _plan,
    _pods,
    _reclaim_run,
    _recover,
    _recover_facts,
    _restore_plan,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts, Request, decide


def plan(given: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError when input or request make no sense, or when more would be changed than is allowed."""
    action, total = given["action"], 0
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
    else:
        listing = _listing.load(given["listing"])
        if action in NEED_REQUEST and not given[action]:
            raise ValueError(f"{action}: is needed, with what is wanted")
        found, total = MAKERS[action](listing, given[action] or {}, given["host"]), listing.total
    what = "mounts and pods" if action == "recover" else "volumes"
    problem = _plan.over_limit(len(found["steps"]), given["max_changes"], total, what)
    if problem:
        raise ValueError(problem)
    return found


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
    return _reclaim_run.plan(
        decisions, request, cluster_uid=listing.cluster_uid, listed_at=listing.listed_at, host=host
    )


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
