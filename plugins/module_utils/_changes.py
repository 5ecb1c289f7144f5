# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to many objects of a cluster: whether they may begin, and what counts as failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _volume_set

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

Item = dict[str, Any]
# States that fail a run, whichever objects were meant.
BAD = ("stale", "failed", "not_started")
KEYS = {"volume": "name", "claim": "claim"}  # what names an item
_SHOWN = 5

# As documented in doc_fragments/api.py.
ARGUMENTS: dict[str, Any] = {
    "plan": {"type": "path"},
    "max_changes": {"type": "str"},
    "on_error": {"type": "str", "choices": ["continue", "stop"], "default": "continue"},
    "wait_timeout": {"type": "int", "default": 120},
}


@dataclass
class Outcome:
    """What a run did. C(problem) says why it counts as failed, C(more) is what else the module returns."""

    items: list[Item]
    changed: bool
    diffs: Sequence[Mapping[str, str]] = ()
    problem: str = ""
    plan_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def load_plan(api: Api, path: str | None, action: str | None) -> dict[str, Any] | None:
    """The plan that is to be run, None if none is. Raises ValueError when it is not for this cluster and action.

    C(action): None for any.
    """
    if not path:
        return None
    found = _plan.load(path, action)
    if found["cluster_uid"] != _volume_set.cluster_uid(api):
        raise ValueError(f"{path}: the plan is for another cluster ({found['cluster_uid']})")
    return found


def reason_not_to_begin(api: Api, given: Mapping[str, Any], changes: int, wrong: Iterable[str]) -> str:
    """Why nothing at all may be done; empty if it may. C(wrong): what cannot come to what is asked for."""
    total = api.count(_volume_set.VOLUMES)[0] if _plan.needs_total(given["max_changes"]) else 0
    found = _plan.over_limit(changes, given["max_changes"], total)
    if found or given["on_error"] != "stop" or given["selection"] is not None:
        return found
    told = "; ".join(wrong)
    return f"nothing was done since on_error is stop: {told}" if told else ""


def problem(items: Sequence[Item], given: Mapping[str, Any], kind: str) -> str:
    """Why the run has failed. What was named must come to what was asked for; what was selected may be refused.

    C(kind) is C(volume) or C(claim).
    """
    bad = {*BAD, "refused", "gone"} if given["selection"] is None else set(BAD)
    wrong = [item for item in items if item["state"] in bad]
    if not wrong:
        return ""
    key = KEYS[kind]
    shown = "; ".join(f"{item[key]} ({item['state']}) {item.get('reason', '')}" for item in wrong[:_SHOWN])
    more = f"; and {len(wrong) - _SHOWN} more, see {kind}s" if len(wrong) > _SHOWN else ""
    return f"{len(wrong)} of {len(items)} {kind}s are not as asked for: {shown}{more}"


def result_file(plan: str | None) -> str | None:
    """Every plan that is run gets a file beside it with what became of its steps."""
    return f"{plan}.result.jsonl" if plan else None
