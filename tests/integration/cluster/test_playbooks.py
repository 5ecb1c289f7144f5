# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as a user runs them: shown first, then done, at once or from the approved plan."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from .cluster import Cluster

RECLAIM = "clusterkit.storage.reclaim"
EXPAND = "clusterkit.storage.expand"
CLEANUP = "clusterkit.storage.cleanup"


def test_reclaim_shows_its_plan_and_does_what_was_approved(empty: Cluster, tmp_path: Path) -> None:
    empty.make_released(["a", "b", "c"], storage_class="shown")
    before = empty.volumes()
    plan = tmp_path / "plan.json"
    wanted = {"reclaim_storage_classes": "shown", "reclaim_release": "reserved", "reclaim_plan_dest": str(plan)}
    shown = empty.play(RECLAIM, **wanted)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "3 to change, 0 as wanted, 0 refused" in shown.stdout
    assert "Nothing was done" in shown.stdout
    assert empty.volumes() == before
    assert len(json.loads(plan.read_text())["steps"]) == 3
    # One volume changes before the plan is run: it alone is left out.
    empty.patch("/api/v1/persistentvolumes/b", {"metadata": {"labels": {"touched": "yes"}}})
    done = empty.play(RECLAIM, reclaim_plan_file=str(plan))
    assert done.returncode != 0
    assert "b (stale) has changed since the plan was made" in " ".join(done.stdout.split())
    assert [empty.phase(name) for name in "abc"] == ["Available", "Released", "Available"]
    results = [json.loads(line) for line in Path(f"{plan}.result.jsonl").read_text().splitlines()]
    assert [(one["name"], one["state"]) for one in results] == [("a", "changed"), ("b", "stale"), ("c", "changed")]
    # At once, and again without a change.
    first, second = (empty.play(RECLAIM, reclaim_confirm="true", **wanted) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    assert "changed=0" in second.stdout
    assert empty.phase("b") == "Available"


def test_an_edited_plan_and_a_plan_for_another_cluster_are_refused(empty: Cluster, tmp_path: Path) -> None:
    empty.make_released(["a", "b"], storage_class="shown")
    plan = tmp_path / "plan.json"
    wanted = {"reclaim_names": ["a", "b"], "reclaim_release": "open", "reclaim_plan_dest": str(plan)}
    assert empty.play(RECLAIM, **wanted).returncode == 0
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({**content, "steps": content["steps"][:1]}))
    assert "was edited" in empty.play(RECLAIM, reclaim_plan_file=str(plan)).stdout
    assert {empty.phase("a"), empty.phase("b")} == {"Released"}


def test_reclaim_without_a_selection_or_above_the_limit_does_nothing(empty: Cluster, tmp_path: Path) -> None:
    empty.make_released(["a", "b"])
    always = {"reclaim_release": "open", "reclaim_confirm": True, "reclaim_plan_dest": str(tmp_path / "plan")}
    without = empty.play(RECLAIM, reclaim_names="", reclaim_phases=[], **always)
    assert "no selection never means all" in " ".join(without.stdout.split())
    above = empty.play(RECLAIM, reclaim_phases="Released", reclaim_max_changes="1", **always)
    assert "2 volumes would be changed, but max_changes is 1" in above.stdout
    assert without.returncode
    assert above.returncode
    assert not (tmp_path / "plan").exists()
    checked = empty.play(RECLAIM, "--check", "--diff", reclaim_phases="Released", **always)
    assert checked.returncode == 0, checked.stdout
    assert "claimRef: null" in checked.stdout
    assert {empty.phase("a"), empty.phase("b")} == {"Released"}
    assert not (tmp_path / "plan").exists()


def test_expand_says_what_a_list_of_claims_looks_like(empty: Cluster) -> None:
    refused = empty.play(EXPAND, expand_claims="shop/data", expand_size="20Gi")
    assert refused.returncode != 0
    words = " ".join(refused.stdout.split())
    assert 'expand_claims is "shop/data", expected a list such as' in words, refused.stdout


def test_cleanup_refuses_servers_that_nobody_knows(empty: Cluster, tmp_path: Path) -> None:
    servers = [{"host": "second", "addresses": ["192.0.2.7"], "shares": [{"server_path": "/srv/nfs"}]}]
    plan = tmp_path / "plan.json"
    refused = empty.play(CLEANUP, storage_servers=servers, cleanup_plan_dest=str(plan))
    assert refused.returncode != 0
    words = " ".join(refused.stdout.split())
    assert "storage_servers names second, and the inventory has no such host" in words, refused.stdout
    assert not plan.exists()


def test_expand_shows_its_plan_and_does_it_from_an_include(empty: Cluster, tmp_path: Path) -> None:
    empty.make_class("grows")
    for name in ("a", "b"):
        empty.make_bound(name, storage_class="grows")
    plan = tmp_path / "plan.json"
    shown = empty.play(EXPAND, expand_namespaces="default", expand_size="2Gi", expand_plan_dest=str(plan))
    assert "2 to change" in shown.stdout, shown.stdout + shown.stderr
    assert empty.claim("a")["status"]["capacity"]["storage"] == "1Gi"
    done = empty.play(EXPAND, expand_plan_file=str(plan))
    assert done.returncode == 0, done.stdout
    assert {empty.claim(name)["status"]["capacity"]["storage"] for name in "ab"} == {"2Gi"}
    assert "promised" in done.stdout
    # The tasks in somebody else's playbook.
    tasks = (
        Path(__file__).resolve().parents[3] / ".work/collections/ansible_collections/clusterkit/storage/playbooks/tasks"
    )
    play = {
        "name": "Mine",
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {"group/clusterkit.storage.k8s": {"kubeconfig": empty.kubeconfig}},
        "tasks": [{"name": "Grow", "ansible.builtin.include_tasks": str(tasks / "expand.yml")}],
    }
    (tmp_path / "mine.yml").write_text(yaml.safe_dump([play]))
    named = [{"namespace": "default", "name": "a", "size": "3Gi"}]
    given = {"expand_claims": named, "expand_confirm": True, "expand_plan_dest": str(plan)}
    mine = empty.play(tmp_path / "mine.yml", **given)
    assert mine.returncode == 0, mine.stdout + mine.stderr
    assert empty.claim("a")["status"]["capacity"]["storage"] == "3Gi"
    assert empty.claim("b")["status"]["capacity"]["storage"] == "2Gi"
