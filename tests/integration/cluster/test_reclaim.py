# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of volumes in every state, in a cluster whose controllers are real; and who may do it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import PROVISIONER, Cluster, write_kubeconfig

POLICIES = ("Retain", "Delete", "Recycle")
STATES = ("Bound", "Released", "Available", "Failed", "deleting")
UNREACHABLE = {
    ("static", "Delete", "Released"): "the controller has no deleter for it and makes it Failed at once",
}
IN_USE, DELETING = "is Bound to", "is being deleted since"
EMPTIED = "emptying it"
KEEP = "add policy: Retain"
# What `release` does to each; a word of the refusal, or the state that the volume gets to.
TABLE: dict[tuple[str, str], str | dict[str, str]] = {
    ("Bound", "*"): IN_USE,
    ("deleting", "*"): DELETING,
    ("Available", "*"): {"open": "unchanged", "reserved": "names no claim"},
    ("Released", "Retain"): "changed",
    ("Released", "Delete"): KEEP,
    ("Released", "Recycle"): EMPTIED,
    ("Failed", "Retain"): "changed",
    ("Failed", "Delete"): KEEP,
    ("Failed", "Recycle"): EMPTIED,
}


def expected(policy: str, state: str, release: str) -> str:
    found = TABLE.get((state, policy)) or TABLE[state, "*"]
    return found if isinstance(found, str) else found[release]


def bring_to(cluster: Cluster, name: str, kind: str, policy: str, state: str) -> None:
    """Through the real life of a volume, with the controllers' help."""
    path = f"/api/v1/persistentvolumes/{name}"
    if state == "Failed":
        # A volume without a deleter fails; that it was made by a provisioner, and the policy, are said afterwards.
        cluster.make_volume(name, policy="Delete", storage_class=name)
    else:
        provisioner = PROVISIONER if kind == "dynamic" else None
        cluster.make_volume(name, policy=policy, storage_class=name, provisioner=provisioner)
    if state == "Available":
        return
    cluster.make_claim(f"claim-{name}", storage_class=name)
    cluster.wait(lambda: cluster.phase(name) == "Bound")
    if state == "deleting":
        cluster.done("DELETE", path)
    elif state == "Released":
        cluster.delete_claim(f"claim-{name}")
        cluster.wait(lambda: cluster.phase(name) == "Released")
    elif state == "Failed":
        cluster.delete_claim(f"claim-{name}")
        cluster.wait(lambda: cluster.phase(name) == "Failed")
        notes = {"pv.kubernetes.io/provisioned-by": PROVISIONER} if kind == "dynamic" else {}
        cluster.patch(path, {"metadata": {"annotations": notes}, "spec": {"persistentVolumeReclaimPolicy": policy}})


def test_release_in_every_state(empty: Cluster) -> None:
    cells = [
        (kind, policy, state, release)
        for kind in ("dynamic", "static")
        for policy in POLICIES
        for state in STATES
        for release in ("open", "reserved")
        if (kind, policy, state) not in UNREACHABLE
    ]
    assert len(cells) == 58
    named = {"-".join(cell).lower(): cell for cell in cells}
    empty.many(lambda name: bring_to(empty, name, *named[name][:3]), named)
    before = empty.volumes()
    found: dict[str, Any] = {}
    for release in ("open", "reserved"):
        mine = [name for name, cell in named.items() if cell[3] == release]
        result = empty.direct("pv_reclaim", volumes=mine, release=release, wait=True)
        found |= {one["name"]: one for one in result["volumes"]}
        found |= {name: {"state": "unchanged"} for name in result["unchanged"]}
    after = empty.volumes()
    wrong = []
    for name, (_kind, policy, state, release) in named.items():
        want, item = expected(policy, state, release), found[name]
        got = item["state"] if want in ("changed", "unchanged") else item.get("reason", item["state"])
        if want not in got:
            wrong.append(f"{name}: expected {want}, got {got}")
        assert before[name]["metadata"].get("finalizers") == after[name]["metadata"].get("finalizers"), name
        if want == "changed":
            assert after[name]["status"]["phase"] == "Available", name
            claim = after[name]["spec"].get("claimRef")
            assert (claim is None) if release == "open" else (claim["name"] == f"claim-{name}" and "uid" not in claim)
            assert ("old content" in item["note"]) and (("next one" in item["note"]) is (release == "open"))
        else:
            assert before[name]["spec"] == after[name]["spec"], name
    assert not wrong, "\n".join(wrong)
    # Those whose policy stood in the way, with Retain in the same request.
    mine = [n for n, (_k, policy, state, _r) in named.items() if policy == "Delete" and state in ("Released", "Failed")]
    result = empty.direct("pv_reclaim", volumes=mine, policy="Retain", release="reserved", wait=True)
    assert result["summary"]["changed"] == len(mine) == 6, result.get("msg")
    # And no volume gets Delete or Recycle where that would destroy data now.
    for policy in ("Delete", "Recycle"):
        mine = [n for n, (_k, had, state, _r) in named.items() if state == "Failed" and had not in (policy, "Delete")]
        result = empty.direct("pv_reclaim", volumes=mine, policy=policy, allow_future_deletion=True)
        refused = {one["name"] for one in result["volumes"] if one["state"] == "refused"}
        still = {name for name in mine if after[name]["status"]["phase"] == "Failed"}
        assert still <= refused


def test_a_volume_that_is_being_emptied_is_not_released(empty: Cluster) -> None:
    """Also when the policy was changed meanwhile: the pod goes on."""
    empty.make_volume("one", policy="Recycle", storage_class="c")
    empty.make_claim("data", storage_class="c")
    empty.wait(lambda: empty.phase("one") == "Bound")
    empty.delete_claim("data")
    pod = "/api/v1/namespaces/default/pods/recycler-for-one"
    empty.wait(lambda: empty.request("GET", pod)[0] == 200)
    result = empty.direct("pv_reclaim", volumes=["one"], policy="Retain")
    assert result["summary"]["changed"] == 1, result
    result = empty.direct("pv_reclaim", volumes=["one"], policy="Retain", release="open")
    assert "a recycler pod is emptying it" in result["volumes"][0]["reason"]
    empty.wait(lambda: empty.request("DELETE", f"{pod}?gracePeriodSeconds=0")[0] == 404)
    result = empty.direct("pv_reclaim", volumes=["one"], release="open", wait=True)
    assert result["volumes"][0]["phase"] == "Available", result


def test_a_static_volume_with_policy_delete_fails_at_once(empty: Cluster) -> None:
    """Why one cell of the table cannot be reached."""
    empty.make_volume("one", policy="Delete", storage_class="c")
    empty.make_claim("data", storage_class="c")
    empty.wait(lambda: empty.phase("one") == "Bound")
    empty.delete_claim("data")
    empty.wait(lambda: empty.phase("one") == "Failed")


def test_a_reserved_volume_waits_for_its_claim_whoever_comes(empty: Cluster) -> None:
    empty.make_volume("one", storage_class="c")
    empty.make_claim("data", storage_class="c")
    empty.wait(lambda: empty.phase("one") == "Bound")
    empty.delete_claim("data")
    empty.wait(lambda: empty.phase("one") == "Released")
    for number in range(10):
        empty.make_claim(f"rival-{number}", storage_class="c")
    result = empty.direct("pv_reclaim", volumes=["one"], release="reserved", wait=True)
    assert result["summary"]["changed"] == 1, result
    empty.make_volume("other", storage_class="c")  # the controller has gone through all claims when this one is taken
    empty.wait(lambda: empty.phase("other") == "Bound")
    assert empty.phase("one") == "Available"
    empty.make_claim("data", storage_class="c")
    empty.wait(lambda: empty.phase("one") == "Bound")
    assert empty.volume("one")["spec"]["claimRef"]["name"] == "data"
    assert empty.claim("data")["spec"]["volumeName"] == "one"


def test_claim_before_its_volume_and_volume_deleted_before_its_claim(empty: Cluster) -> None:
    empty.make_claim("early", storage_class="c")
    empty.make_volume("late", storage_class="c")
    empty.wait(lambda: empty.phase("late") == "Bound")
    empty.done("DELETE", "/api/v1/persistentvolumes/late")
    assert empty.phase("late") == "Bound"
    record = empty.direct("pv_info", selection={"names": ["late"]})["volumes"][0]
    assert record["deleting"]
    kept = empty.direct("pv_reclaim", volumes=["late"], policy="Retain", release="reserved")
    assert "being deleted" in kept["volumes"][0]["reason"]
    empty.delete_claim("early")
    empty.wait(lambda: empty.request("GET", "/api/v1/persistentvolumes/late")[0] == 404)
    gone = empty.direct("pv_reclaim", volumes=["late"], release="reserved")
    assert gone["volumes"] == [{"name": "late", "state": "gone", "reason": "does not exist"}]


def test_protected_namespaces_and_returned_claims(empty: Cluster) -> None:
    empty.namespace("vault", **{"storage.clusterkit/protected": "true"})
    empty.namespace("shop")
    for name, namespace in (("labelled", "vault"), ("listed", "shop"), ("returned", "default"), ("free", "default")):
        empty.make_released([name])
        empty.patch(f"/api/v1/persistentvolumes/{name}", {"spec": {"claimRef": {"namespace": namespace}}})
    empty.make_claim("claim-returned", storage_class="none")
    result = empty.direct(
        "pv_reclaim", selection={"phases": ["Released"]}, release="open", protected_namespaces=["shop"]
    )
    reasons = {one["name"]: one.get("reason", one["state"]) for one in result["volumes"]}
    assert "failed" not in result, "a selection may hold volumes that are refused"
    assert 'protected namespace "vault"' in reasons["labelled"]
    assert 'protected namespace "shop"' in reasons["listed"]
    assert "exists again, with another uid" in reasons["returned"]
    assert reasons["free"] == "changed"


def test_limits_and_errors_stop_before_anything_is_done(empty: Cluster) -> None:
    empty.make_released([f"pv-{number}" for number in range(10)])
    before = empty.volumes()
    selection = {"names": ["pv-*"]}
    for arguments, words in (
        ({"selection": selection, "max_changes": "9"}, "10 volumes would be changed, but max_changes is 9"),
        ({"selection": selection, "max_changes": "50%"}, "which is 5 of 10 volumes"),
        ({"selection": {}}, "never means all"),
        ({"volumes": []}, "never all"),
        ({"volumes": ["pv-1", "nope"], "on_error": "stop"}, "nope does not exist"),
    ):
        result = empty.direct("pv_reclaim", release="open", **arguments)
        assert result["failed"]
        assert words in result["msg"]
    assert empty.volumes() == before
    result = empty.direct("pv_reclaim", selection=selection, release="open", check=True, diff=True)
    assert result["summary"]["changed"] == len(result["diff"]) == 10
    assert empty.volumes() == before, "check mode"
    result = empty.direct("pv_reclaim", selection=selection, release="open", max_changes="100%")
    assert result["summary"]["changed"] == 10


def test_pages_files_and_counts_of_many(empty: Cluster, tmp_path: Path) -> None:
    empty.many(lambda n: empty.make_volume(f"pv-{n:04d}", storage_class="gold" if n % 2 else "tin"), range(1200))
    whole = empty.direct("pv_info", dest=str(tmp_path / "all.jsonl"))
    assert whole["complete"]
    assert whole["counts"]["by_storage_class"]["gold"] == {"volumes": 600, "bytes": 600 * 2**30}
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [one["name"] for one in lines[1:]] == [f"pv-{number:04d}" for number in range(1200)]
    assert lines[0]["cluster_uid"] == whole["cluster_uid"]
    some = empty.direct("pv_info", selection={"storage_classes": ["gold"], "names": ["pv-00*"]})
    assert (len(some["volumes"]), some["complete"]) == (50, False)


# Rights and secrets ------------------------------------------------------------------------------------

EVERYWHERE = {
    "": ["endpoints"],
    "coordination.k8s.io": ["leases"],
    "apps": ["deployments", "statefulsets"],
}
RIGHTS: dict[str, list[tuple[str, str, str]]] = {
    "pv_info": [
        ("", "persistentvolumes", "list"),
        ("", "namespaces", "get"),
        *((group, kind, "list") for group, kinds in EVERYWHERE.items() for kind in kinds),
    ],
    "pvc_expand": [
        ("", "persistentvolumes", "list"),
        ("", "persistentvolumes", "patch"),
        ("", "persistentvolumeclaims", "list"),
        ("", "persistentvolumeclaims", "patch"),
        ("", "persistentvolumeclaims/status", "patch"),
        ("storage.k8s.io", "storageclasses", "list"),
    ],
    "pv_cleanup": [
        ("", "persistentvolumes", "get"),
        ("", "persistentvolumes", "list"),
        ("", "persistentvolumes", "patch"),
        ("", "persistentvolumes", "delete"),
        ("", "persistentvolumes", "create"),
        ("", "persistentvolumeclaims", "get"),
        ("", "persistentvolumeclaims", "create"),
        ("", "namespaces", "get"),
        ("", "namespaces", "list"),
        ("", "pods", "list"),
        ("storage.k8s.io", "storageclasses", "get"),
        *((group, kind, "list") for group, kinds in EVERYWHERE.items() for kind in kinds),
    ],
    "pv_reclaim": [
        ("", "persistentvolumes", "get"),
        ("", "persistentvolumes", "list"),
        ("", "persistentvolumes", "patch"),
        ("", "persistentvolumes", "watch"),
        ("", "namespaces", "list"),
        ("", "persistentvolumeclaims", "get"),
        ("", "pods", "list"),
        *((group, kind, "list") for group, kinds in EVERYWHERE.items() for kind in kinds),
    ],
}


def rules(rights: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [{"apiGroups": [group], "resources": [kind], "verbs": [verb]} for group, kind, verb in rights]


@pytest.mark.parametrize("module", ["pv_info", "pvc_expand", "pv_reclaim"])
def test_the_documented_rights_are_enough_and_each_is_named_when_it_is_missing(empty: Cluster, module: str) -> None:
    arguments: dict[str, Any] = {"selection": {"names": ["*"]}}
    if module == "pv_reclaim":
        arguments = {"volumes": ["plain", "dynamic"], "policy": "Retain", "release": "open", "wait": True}
    empty.make_class("grows")
    missing: list[tuple[str, str, str] | None] = [None, *RIGHTS[module]]
    empty.make_released([f"plain-{number}" for number in range(len(missing))])
    empty.make_released([f"dynamic-{n}" for n in range(len(missing))], policy="Delete", provisioner=PROVISIONER)
    for number, left_out in enumerate(missing):
        if module == "pvc_expand":
            empty.make_bound(f"bound-{number}", storage_class="grows")
            arguments = {"claims": [{"namespace": "default", "name": f"bound-{number}"}], "size": "2Gi"}
        if module == "pv_reclaim":
            arguments["volumes"] = [f"plain-{number}", f"dynamic-{number}"]
        account = empty.service_account(
            f"{module.replace('_', '-')}-{number}", rules([one for one in RIGHTS[module] if one != left_out])
        )
        result = empty.direct(module, kubeconfig=account, **arguments)
        if left_out is None:
            assert not result.get("failed"), result
        else:
            _group, kind, verb = left_out
            assert result.get("failed"), left_out
            assert f"needs verb {verb} on {kind}" in result["msg"], (left_out, result["msg"])


def test_the_role_in_the_guide_has_all_of_these_rights() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs/volumes.md").read_text()
    (play,) = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)[-1])
    role = play["tasks"][0]["kubernetes.core.k8s"]["definition"]
    granted = {
        (group, kind, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {right for rights in RIGHTS.values() for right in rights} <= granted


def test_no_secret_of_a_kubeconfig_is_ever_shown(empty: Cluster, tmp_path: Path) -> None:
    account = empty.service_account("secretive", rules(RIGHTS["pv_info"]))
    admin = yaml.safe_load(Path(empty.kubeconfig).read_text())
    file = write_kubeconfig(tmp_path / "config", account)
    secrets = [account["users"][0]["user"]["token"], admin["users"][0]["user"]["client-key-data"]]
    broken = json.loads(json.dumps(account))
    broken["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    for kubeconfig, module, arguments in (
        (account, "pv_info", {}),
        (file, "pv_info", {"nonsense": 1}),
        (admin, "pv_reclaim", {"volumes": ["nope"], "policy": "Retain"}),
        (admin, "pvc_expand", {"claims": [], "size": "1Gi"}),
        (broken, "pv_info", {"retry_timeout": 0}),
        ({**account, "current-context": "nope"}, "pv_info", {}),
    ):
        done = empty.ansible(module, "-vvvv", kubeconfig=kubeconfig, **arguments)
        # The command line itself is shown by the operating system, not by Ansible: only its output counts.
        for secret in secrets:
            assert secret not in done.stdout + done.stderr, (module, arguments)
    for name in ("K8S_AUTH_API_KEY", "K8S_AUTH_HOST"):
        assert name not in done.stdout


def test_each_way_to_log_in(empty: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = empty.service_account("log-in", rules(RIGHTS["pv_info"]))
    token, host = account["users"][0]["user"]["token"], f"https://127.0.0.1:{empty.port}"
    ca = tmp_path / "ca.crt"
    ca.write_text(empty.plane.ca)
    pki = empty.plane.folder / "pki"
    file = write_kubeconfig(tmp_path / "config", account)
    ways: list[dict[str, Any]] = [
        {"kubeconfig": None, "host": host, "api_key": token, "ca_cert": str(ca)},
        {"kubeconfig": None, "host": host, "api_key": token, "validate_certs": False},
        {
            "kubeconfig": None,
            "host": host,
            "ca_cert": str(ca),
            "client_cert": str(pki / "admin.crt"),
            "client_key": str(pki / "admin.key"),
        },
        {"kubeconfig": file, "context": "own"},
    ]
    for way in ways:
        result = empty.direct("pv_info", **way)
        assert "volumes" in result, (way, result)
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", file)
    assert "volumes" in empty.direct("pv_info", kubeconfig=None)
    monkeypatch.delenv("K8S_AUTH_KUBECONFIG")
    wrong = empty.direct("pv_info", kubeconfig=None, host=host, api_key=token)
    assert re.search("certificate verify failed", wrong["msg"])
    refused = empty.direct("pv_info", kubeconfig=None, host=host, api_key="wrong", ca_cert=str(ca))
    assert "does not accept these credentials" in refused["msg"]
    groups: dict[str, Any] = {"impersonate_user": "somebody", "impersonate_groups": ["one", "system:masters"]}
    assert "volumes" in empty.direct("pv_info", **groups), "the second group alone gives the right"
    assert "needs verb" in empty.direct("pv_info", impersonate_user="somebody")["msg"]
