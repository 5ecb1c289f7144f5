# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about volumes as a plan, and a plan as decisions: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Item
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Found
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Decision, Request
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim_content import Contents
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

QUARANTINE = "quarantine"  # the method of a step on a volume whose content has to go there before


def outcome(volume: Volume | None, name: str, state: str, reason: str = "", **more: Any) -> Item:
    item: Item = {"name": name, "state": state}
    if reason:
        item["reason"] = reason
    if volume:
        item |= {"uid": volume.uid, "phase": volume.phase, "policy": volume.policy, "claim": volume.claim_name or None}
    return {**item, **more}


def plan(
    decisions: Sequence[Decision],
    request: Request,
    *,
    cluster_uid: str,
    listed_at: str,
    host: str,
    missing: Iterable[str] = (),
    contents: Contents | None = None,
) -> dict[str, Any]:
    """The decisions as a plan. C(contents): whose content goes into quarantine before."""
    stay = contents.refusals if contents else {}

    def steps(decision: Decision) -> Iterator[dict[str, Any]]:
        volume = decision.volume
        step = {
            "item": volume.name,
            "precondition": decision.precondition,
            "before": words(volume.phase, volume.policy, volume.claim_name),
            "after": _after(decision, request),
            "reason": decision.note or "policy, labels or annotations differ",
        }
        place = contents.places.get(volume.uid) if contents else None
        if place is None:
            yield step
            return
        yield _content_step(volume, place)
        yield {**step, "method": QUARANTINE, "server_host": place.host, "share": place.share, "directory": place.path}

    going = [one for one in decisions if one.patch and one.volume.uid not in stay]
    refusals = [{"item": one.volume.name, "reason": one.refusal} for one in decisions if one.refusal]
    refusals += [
        {"item": one.volume.name, "reason": stay[one.volume.uid]} for one in decisions if one.volume.uid in stay
    ]
    refusals += [{"item": name, "reason": "does not exist"} for name in missing]
    return _plan.make(
        "reclaim",
        cluster_uid=cluster_uid,
        listed_at=listed_at,
        request={**request.plain(), **({"storage_servers": contents.storage_servers} if contents else {})},
        steps=[step for one in going for step in steps(one)],
        refusals=refusals,
        unchanged=sum(1 for one in decisions if not one.patch and not one.refusal),
        host=host,
        more={"changes": len(going), "keep": contents.keep} if contents else None,
    )


def _content_step(volume: Volume, place: Found) -> dict[str, Any]:
    return {
        "item": volume.name,
        "module": "volume_dirs",
        "state": "quarantined",
        "host": place.host,
        "share": place.share,
        "directory": place.path,
        "scope": "content",
        "volume": {"name": volume.name, "uid": volume.uid},
        "precondition": {"device": place.record["device"], "inode": place.record["inode"]},
        "before": f"content of {place.path}",
        "after": "in quarantine, the directory stays",
        "reason": f"{volume.name} is opened for any claim",
    }


def words(phase: str, policy: str, claim: str) -> str:
    return ", ".join(filter(None, [phase, policy, claim]))


def _after(decision: Decision, request: Request) -> str:
    volume = decision.volume
    policy = request.of_volume(volume).policy or volume.policy
    if "claimRef" not in decision.patch.get("spec", {}):
        return words(volume.phase, policy, volume.claim_name)
    return words("Available", policy, f"reserved for {volume.claim_name}" if request.release == "reserved" else "open")


def steps_of(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of a plan on volumes; those on directories are for volume_dirs."""
    return [step for step in found["steps"] if step["module"] == "pv_reclaim"]


def from_plan(
    found: Mapping[str, Any],
    volumes: Mapping[str, Volume],
    judge: Callable[[Volume], Decision],
    emptied: Iterable[str] = (),
) -> list[Decision | Item]:
    """For each step the decision on the volume as it is now, or why it must not be touched.

    C(emptied): whose content is in quarantine. A volume of which the plan wants that is not released before.
    """
    answers: list[Decision | Item] = []
    unknown = sorted(set(emptied) - {step["item"] for step in steps_of(found) if step.get("method") == QUARANTINE})
    if unknown:
        raise ValueError(f'emptied: "{unknown[0]}" is no volume of the plan whose content is to go into quarantine')
    for step in steps_of(found):
        volume, wanted = volumes.get(step["item"]), step["precondition"]
        if volume is None:
            answers.append(outcome(None, step["item"], "gone", "does not exist any more"))
            continue
        decision = judge(volume)
        if decision.patch and step.get("method") == QUARANTINE and step["item"] not in set(emptied):
            answers.append(
                outcome(volume, volume.name, "refused", "its content is not in quarantine: it stays as it is")
            )
            continue
        as_planned = (volume.uid, volume.resource_version) == (wanted["uid"], wanted["resource_version"])
        if as_planned or (volume.uid == wanted["uid"] and not decision.patch and not decision.refusal):
            answers.append(decision)
        else:
            answers.append(
                outcome(volume, volume.name, "stale", "has changed since the plan was made; make a new plan")
            )
    return answers
