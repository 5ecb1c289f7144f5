# SPDX-License-Identifier: GPL-3.0-or-later
"""What is backed up and restored where is decided before anything is done, and every refusal has its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup,
    _backup_plan,
    _listing,
    _planner,
    _restore_plan,
    _workloads,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.tests.api_server import Cluster, client
from ansible_collections.clusterkit.storage.tests.api_server_http import serving

SERVERS = [
    {
        "name": name,
        "host": f"{name}.example.com",
        "addresses": [address],
        "shares": [{"server_path": "/srv/share", "client_path": "/nfs"}],
    }
    for name, address in (("nfs1", "192.0.2.10"), ("nfs2", "192.0.2.11"))
]
HOST, OTHER = "nfs1.example.com", "nfs2.example.com"


def volume(name: str, claim: str = "data", namespace: str = "shop", **more: Any) -> dict[str, Any]:
    reference = {"claimRef": {"namespace": namespace, "name": claim, "uid": f"c-{claim}"}} if claim else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": "7"},
        "spec": {
            "nfs": {"server": "192.0.2.10", "path": f"/nfs/{name}"},
            "storageClassName": "kept",
            "persistentVolumeReclaimPolicy": "Delete",
            **reference,
            **more,
        },
        "status": {"phase": "Bound" if claim else "Available"},
    }


def claim(name: str = "data", volume_name: str = "pv", namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"c-{name}",
            "resourceVersion": "8",
            "labels": labels,
        },
        "spec": {"volumeName": volume_name, "selector": {}, "storageClassName": "kept"},
        "status": {"phase": "Bound"},
    }


CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "kept"},
    "provisioner": "x",
}


def listing(volumes: list[dict[str, Any]], objects: list[dict[str, Any]] | None = None, **more: Any) -> Listing:
    made = Listing([Volume.of(one) for one in volumes], "cluster", more.pop("complete", True), "now", len(volumes))
    made.objects = [*volumes, *(objects or [])]
    made.claims = [_listing.claim_record(one) for one in objects or [] if one["kind"] == "PersistentVolumeClaim"]
    for name, value in more.items():
        setattr(made, name, value)
    return made


def pod(name: str, claim_name: str, owner: dict[str, str] | None = None) -> dict[str, Any]:
    return {"kind": "Pod", "namespace": "shop", "name": name, "claims": [claim_name], "owner": owner}


WEB: dict[str, Any] = {
    "kind": "Deployment", "namespace": "shop", "name": "web", "replicas": 2, "stopped": None, "claims": ["data"],
    "claim_prefixes": [],
}  # fmt: skip
WORKLOAD = {name: WEB[name] for name in ("kind", "namespace", "name")}


# --- backup ------------------------------------------------------------------------------------------------


def back_up(found: Listing, **given: Any) -> dict[str, Any]:
    defaults = {name: one.get("default") for name, one in _backup_plan.ARGUMENTS.items()}
    return _backup_plan.plan(found, {**defaults, "storage_servers": SERVERS, **given}, "localhost")


def test_a_backup_has_host_directory_and_objects_of_each_volume() -> None:
    plan = back_up(listing([volume("pv"), volume("free", claim="")], [claim(), CLASS], complete=False))
    free, bound = plan["steps"]
    assert (bound["item"], bound["host"], bound["before"]) == ("shop/data (pv)", HOST, f"{HOST}:/srv/share/pv")
    assert bound["volume"]["server_dir"] == "/srv/share/pv"
    assert set(bound["volume"]["objects"]) == {"claim", "volume", "storage_class"}
    assert bound["precondition"] == {"uid": "u-pv", "resource_version": "7"}
    assert (free["volume"]["namespace"], free["volume"]["claim"]) == ("", "")
    assert set(free["volume"]["objects"]) == {"volume", "storage_class"}
    # A claim of the same name that has another volume by now is not the one of this volume.
    (old,) = back_up(listing([volume("pv")], [claim(volume_name="new")], complete=False))["steps"]
    assert set(old["volume"]["objects"]) == {"volume"}


def test_no_selection_never_means_all_and_claims_are_one() -> None:
    found = listing([volume("pv"), volume("other", claim="o")], [claim(app="web"), claim("o", "other")])
    with pytest.raises(ValueError, match="no selection never means all"):
        back_up(found)
    assert [one["volume"]["name"] for one in back_up(found, claims=["shop/d*"])["steps"]] == ["pv"]
    assert [one["volume"]["name"] for one in back_up(found, claim_labels={"app": "web"})["steps"]] == ["pv"]
    assert back_up(found, claims=["shop/none"])["refusals"] == [
        {"item": "shop/none", "reason": "is bound to no volume of the selection"}
    ]


def test_what_lies_elsewhere_is_refused_with_its_place() -> None:
    far = volume("far", nfs={"server": "198.51.100.1", "path": "/x"})
    local = volume("local")
    local["spec"]["hostPath"] = local["spec"].pop("nfs")
    reasons = {one["item"]: one["reason"] for one in back_up(listing([far, local], complete=False))["refusals"]}
    assert reasons == {
        "shop/data (far)": "lies on 198.51.100.1:/x, which no share of storage_servers covers",
        "shop/data (local)": "is no NFS volume",
    }


def test_who_is_stopped_for_a_backup() -> None:
    found = listing([volume("pv")], complete=False, workloads=[WEB], pods=[pod("p", "data", {**WEB})])
    assert back_up(found)["steps"][0]["workloads"] == []
    assert back_up(found)["steps"][0]["reason"] == "as it is, in use"
    (step,) = back_up(found, scale=True)["steps"]
    assert (step["workloads"], step["reason"]) == ([WORKLOAD], "Deployment web stopped meanwhile")
    lonely = listing([volume("pv")], complete=False, pods=[pod("p", "data")])
    assert "belongs to nobody" in back_up(lonely, scale=True)["refusals"][0]["reason"]


# --- restore -----------------------------------------------------------------------------------------------


def generation(host_time: str = "2026-03-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    made = {
        "engine": "rsync", "generation": "20260301T000000Z", "namespace": "shop", "name": "pv", "claim": "data",
        "time": host_time, "complete": True, "damaged": False, "latest": True, "files": 1, "bytes": 1, **more,
    }  # fmt: skip
    if "objects" not in made:
        objects = {"claim": claim(made["claim"] or "data", made["name"]), "volume": volume(made["name"], made["claim"]),
                   "storage_class": CLASS}  # fmt: skip
        made["objects"] = _backup.object_files(objects)["objects.json"]
    return made


def restore(folder: Path, found: Listing, *generations: dict[str, Any], **given: Any) -> dict[str, Any]:
    hosts = given.pop("hosts", None) or [{"host": HOST, "generations": list(generations or [generation()])}]
    (folder / "backups").write_text(json.dumps(hosts))
    defaults = {name: one.get("default") for name, one in _restore_plan.ARGUMENTS.items()}
    request = {**defaults, "backups": str(folder / "backups"), "storage_servers": SERVERS, **given}
    if not any(given.get(name) for name in ("claims", "namespaces", "volumes")):
        request["claims"] = ["shop/data"]
    return _restore_plan.plan(found, request, "localhost")


def only(plan: dict[str, Any]) -> dict[str, Any]:
    assert plan["refusals"] == []
    (step,) = plan["steps"]
    return dict(step)


def refusal(plan: dict[str, Any]) -> str:
    assert plan["steps"] == []
    return str(plan["refusals"][0]["reason"])


def wanted(**more: Any) -> dict[str, Any]:
    return {"namespace": "shop", "claim": "data", **more}


def test_on_an_emptied_cluster_all_is_made_for_each_other(tmp_path: Path) -> None:
    step = only(restore(tmp_path, listing([])))
    assert step["volume"] == {
        "name": "pv", "namespace": "shop", "generation": "20260301T000000Z", "server_dir": "/srv/share/pv",
        "share": "/srv/share", "paths": [], "target_name": "pv",
    }  # fmt: skip
    made = step["objects"]
    assert set(made) == {"volume", "claim", "storage_class"}
    assert made["volume"]["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert made["volume"]["spec"]["claimRef"]["name"] == made["claim"]["metadata"]["name"] == "data"
    assert "uid" not in made["volume"]["spec"]["claimRef"]
    assert made["claim"]["spec"]["volumeName"] == "pv" and "selector" not in made["claim"]["spec"]
    assert (step["policy"], step["precondition"]) == ("Delete", {"generation": "20260301T000000Z"})
    assert only(restore(tmp_path, listing([]), policy="Retain"))["policy"] == "Retain"
    found = listing([], classes={"kept": {}})
    assert set(only(restore(tmp_path, found, namespaces=["shop"]))["objects"]) == {"volume", "claim"}
    unclaimed = restore(
        tmp_path, listing([]), generation(namespace="", claim=""), volumes=[{"namespace": "", "name": "pv"}]
    )
    assert "claimRef" not in only(unclaimed)["objects"]["volume"]["spec"]


def test_into_the_same_claim_nothing_is_made(tmp_path: Path) -> None:
    found = listing([volume("pv")], [claim()])
    step = only(restore(tmp_path, found, volumes=[wanted(paths=["a"])]))
    assert (step["objects"], step["volume"]["uid"], step["volume"]["paths"]) == ({}, "u-pv", ["a"])
    assert step["precondition"] == {"generation": "20260301T000000Z", "uid": "u-pv", "claim_uid": "c-data"}
    assert step["reason"] == "only a"
    released = restore(tmp_path, listing([volume("pv")]))
    assert set(only(released)["objects"]) == {"claim", "storage_class"}
    lost = listing([], [claim()])
    assert set(only(restore(tmp_path, lost))["objects"]) == {"volume", "storage_class"}


def test_a_mounted_claim_is_refused_unless_the_run_stops_its_pods(tmp_path: Path) -> None:
    pods = [pod(str(number), "data", {**WEB}) for number in range(4)]
    found = listing([volume("pv")], [claim()], workloads=[WEB], pods=pods)
    assert "shop/0, shop/1, shop/2 and others mounts it" in refusal(restore(tmp_path, found))
    assert only(restore(tmp_path, found, scale=True))["workloads"] == [WORKLOAD]
    left = listing([volume("pv")], [claim()], workloads=[{**WEB, "replicas": 0, "stopped": {"replicas": 2}}])
    assert only(restore(tmp_path, left, scale=True))["workloads"] == [WORKLOAD]
    job = listing([volume("pv")], [claim()], pods=[pod("j", "data", {"kind": "Job", "name": "j"})])
    assert "belongs to Job j" in refusal(restore(tmp_path, job, scale=True))


def test_what_belongs_to_others_by_now_is_left_alone(tmp_path: Path) -> None:
    assert "belongs to shop/other now" in refusal(restore(tmp_path, listing([volume("pv", claim="other")])))
    other = listing([volume("new")], [claim(volume_name="new")])
    assert "claim shop/data has volume new and not pv" in refusal(restore(tmp_path, other))
    going = volume("pv")
    going["metadata"]["deletionTimestamp"] = "now"
    assert "volume pv is being deleted" in refusal(restore(tmp_path, listing([going])))
    ending = claim()
    ending["metadata"]["deletionTimestamp"] = "now"
    assert "claim shop/data is being deleted" in refusal(restore(tmp_path, listing([volume("pv")], [ending])))
    for path in ("/nfs/pv", "/nfs/pv/inner", "/nfs"):
        inner = volume("inner", claim="i", nfs={"server": "192.0.2.10", "path": path})
        assert "is, holds or lies in that of volume inner" in refusal(restore(tmp_path, listing([inner])))
    far = [volume("a", claim="a", nfs={"server": "192.0.2.11", "path": "/nfs/pv"})]
    far += [volume("b", claim="b", nfs={"server": "198.51.100.1", "path": "/nfs/pv"})]
    assert only(restore(tmp_path, listing(far)))


def test_a_new_claim_gets_a_volume_of_its_own(tmp_path: Path) -> None:
    recorded = volume("pv")
    recorded["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": "x", "mine": "kept"}
    objects = _backup.object_files({"claim": claim(), "volume": recorded})["objects.json"]
    one = generation(objects=objects)
    step = only(restore(tmp_path, listing([volume("pv")], [claim()]), one, volumes=[wanted(to_namespace="test")]))
    made = step["objects"]["volume"]
    assert made["metadata"] == {"name": "restored-test-data", "annotations": {"mine": "kept"}}
    assert made["spec"]["nfs"] == {"server": "192.0.2.10", "path": "/nfs/restored-test-data"}
    assert made["spec"]["claimRef"]["namespace"] == step["objects"]["claim"]["metadata"]["namespace"] == "test"
    assert (step["volume"]["server_dir"], step["policy"]) == ("/srv/share/restored-test-data", "Retain")
    hosts = [{"host": HOST, "generations": [generation()]}, {"host": OTHER, "generations": [generation()]}]
    there = wanted(to_claim="x", to_server="nfs2", to_path="/nfs/deep/x", to_name="x")
    step = only(restore(tmp_path, listing([]), hosts=hosts, volumes=[there]))
    assert (step["host"], step["volume"]["server_dir"]) == (OTHER, "/srv/share/deep/x")
    assert step["objects"]["volume"]["spec"]["nfs"]["server"] == "192.0.2.11"
    silent = [{"host": HOST, "generations": [generation()]}, {"host": OTHER, "problem": "disk away", "generations": []}]
    words = refusal(restore(tmp_path, listing([]), hosts=silent, volumes=[there]))
    assert words == f"there is no backup of it in the repository of {OTHER}; {OTHER} cannot tell: disk away"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"to_server": "nfs3"}, "to_server: nfs3 is no entry of storage_servers"),
        ({"to_claim": "x", "to_path": "/elsewhere/x"}, "lies on 192.0.2.10:/elsewhere/x, which no share"),
        ({"to_name": "pv"}, "volume pv exists already; say to_name"),
        ({"generation": "2025"}, "there is no good generation '2025'; the last ones are 20260301T000000Z"),
        ({"claim": "none"}, "there is no backup of it"),
        ({"name": "none"}, "there is no backup of it"),
    ],
)
def test_wrong_wishes_are_refused_by_name(tmp_path: Path, item: dict[str, Any], words: str) -> None:
    found = listing([volume("pv")], [claim()])
    assert words in refusal(restore(tmp_path, found, volumes=[wanted(**item)]))


def test_which_generation_is_meant(tmp_path: Path) -> None:
    old = generation("2026-01-01T00:00:00Z", generation="20260101T000000Z", latest=False, complete=False)
    anew = generation("2026-04-01T00:00:00Z", name="pv-2", generation="20260401T000000Z")
    step = only(restore(tmp_path, listing([]), old, generation(), anew))
    assert step["volume"]["name"] == "pv-2"  # the claim was made anew, and has another volume since
    step = only(restore(tmp_path, listing([]), old, generation(), volumes=[wanted(generation="202601")]))
    assert step["volume"]["generation"] == "20260101T000000Z" and "incomplete or damaged" in step["reason"]
    several = restore(tmp_path, listing([]), old, generation(), volumes=[wanted(generation="2026")])
    assert "several generations begin with '2026'" in refusal(several)
    bare = restore(tmp_path, listing([]), generation(objects=None))
    assert "holds no objects; restore it with volume_restore" in refusal(bare)
    claimless = _backup.object_files({"volume": volume("pv")})["objects.json"]
    assert "neither there nor in the backup" in refusal(restore(tmp_path, listing([]), generation(objects=claimless)))
    local = volume("pv")
    del local["spec"]["nfs"]
    other = generation(objects=_backup.object_files({"volume": local, "claim": claim()})["objects.json"])
    assert refusal(restore(tmp_path, listing([]), other, volumes=[wanted(to_claim="x")])) == "is no NFS volume"
    free = generation(namespace="", claim="")
    assert "say to_namespace and to_claim" in refusal(
        restore(tmp_path, listing([]), free, volumes=[{"namespace": "", "name": "pv", "to_name": "x"}])
    )


def test_two_restores_to_one_place_are_refused(tmp_path: Path) -> None:
    plan = restore(tmp_path, listing([]), claims=["shop/data"], namespaces=["shop", "empty"])
    assert len(plan["steps"]) == 1
    assert sorted(one["reason"] for one in plan["refusals"]) == [
        "there is no backup of it",
        "would be restored to the same place as shop/data",
    ]


def test_input_that_makes_no_sense_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not of all volumes"):
        restore(tmp_path, listing([], complete=False))
    with pytest.raises(
        ValueError, match=r"volumes\[0\].paths\[0\]: '/a' is not relative.*claims: 'x' is not of the form"
    ):
        restore(tmp_path, listing([]), volumes=[wanted(paths=["/a"])], claims=["x"])
    (tmp_path / "wrong").write_text("{")
    with pytest.raises(ValueError, match="does not hold what the hosts told"):
        _restore_plan.load_backups(str(tmp_path / "wrong"))
    defaults = {name: one.get("default") for name, one in _restore_plan.ARGUMENTS.items()}
    (tmp_path / "none").write_text("[]")
    with pytest.raises(ValueError, match="no selection never means all"):
        _restore_plan.plan(listing([]), {**defaults, "backups": str(tmp_path / "none")}, "localhost")


# --- from the API through the file to the plan -----------------------------------------------------------------


@pytest.fixture
def cluster() -> Any:
    with serving() as cluster:
        yield cluster


def test_what_is_listed_for_plans_survives_its_file(cluster: Cluster, tmp_path: Path) -> None:
    for item, resource in (
        (volume("pv"), "persistentvolumes"),
        (claim(), "persistentvolumeclaims"),
        (CLASS, "storageclasses"),
    ):
        metadata = dict(item["metadata"])
        content = {name: value for name, value in item.items() if name not in ("metadata", "kind", "apiVersion")}
        name, namespace, uid = metadata.pop("name"), metadata.pop("namespace", ""), metadata.pop("uid", "")
        cluster.add(resource, name, namespace, uid=uid, **content)
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    cluster.add("pods", "p", "shop", spec={"volumes": volumes})
    template = {"spec": {"volumes": volumes}}
    cluster.add("deployments", "web", "shop", spec={"replicas": 2, "template": template})
    for action in ("backup", "restore"):
        selection = _listing.Selection({"names": ["pv"]} if action == "backup" else {})
        found = _listing.read(client(cluster), selection, provisioner_state=False, plan_for=action)
        path = tmp_path / action
        path.write_text("".join(f"{line}\n" for line in _listing.lines(found)))
        again = _listing.load(str(path))
        assert (again.more, again.pods[0]["name"], again.workloads[0]["name"]) == (found.more, "p", "web")
        given = {"action": action, "plan": None, "listing": str(path), "max_changes": None, "host": "localhost"}
        with pytest.raises(ValueError, match=f"{action}: is needed"):
            _planner.plan({**given, action: None})
        request: dict[str, Any] = {name: one.get("default") for name, one in _backup_plan.ARGUMENTS.items()}
        if action == "restore":
            (tmp_path / "b").write_text(json.dumps([{"host": HOST, "generations": [generation()]}]))
            request = {name: one.get("default") for name, one in _restore_plan.ARGUMENTS.items()}
            request.update(backups=str(tmp_path / "b"), claims=["shop/data"])
        plan = _planner.plan({**given, action: {**request, "storage_servers": SERVERS, "scale": True}}).plan
        assert plan["refusals"][0]["reason"].startswith("pod shop/p mounts it and belongs to nobody")
    path.write_text(path.read_text().replace('"kind": "Deployment"', '"kind": "Other"'))
    with pytest.raises(ValueError, match="'Other' is no kind of record"):
        _listing.load(str(path))
    assert set(_workloads.KINDS) == {"Deployment", "StatefulSet"}
