# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade and teardown while pods write, and a bootstrap with images of a private registry alone, on the lab."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from lab import binaries, containers
from lab.control_plane import HOST_AS_SEEN_BY_GUESTS
from lab.lifecycle import Lab

from . import writers
from .conftest import INVENTORY, Play, play
from .objects import KEPT, VOLUMES, Objects
from .registry import registry

# Each runs several playbooks on emulated machines.
pytestmark = pytest.mark.long

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
NAMESPACE = "nfs-provisioner"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PROVISIONER = "nfs-client-provisioner"
MINE = "labelSelector=drill%3Dupgrade"
SHARE = "/nfs/k8s/dpv"
DELETED = "drill"
OLD_IMAGE = containers.PROVISIONER
NEW_IMAGE = f"{OLD_IMAGE.rpartition(':')[0]}:upgraded"
CTR = "/opt/lab/bin/ctr -n k8s.io images"

# 50 claims; those that end in 0 are of the class that keeps its volumes, the others of the one that deletes them.
WRITING = [f"writing-{number}" for number in range(6)]
QUIET = [f"quiet-{number:02}" for number in range(44)]
FILL = f"""
set -e
cd {SHARE}
for volume in default-quiet-*; do
  mkdir -p $volume/deep/.hidden
  echo $volume > $volume/deep/.hidden/file
  head -c 65536 /dev/urandom > $volume/data
  chown 1000:1000 $volume/data
  chmod 0600 $volume/data
  ln -s data $volume/link
done
"""
LOOK = f"""
set -e
cd {SHARE}
find default-quiet-* -printf '%p %i %y %m %U %G %s %T@ %l\n' | sort
find default-quiet-* -type f -print0 | sort -z | xargs -0 sha256sum
"""


class Volume(NamedTuple):
    uid: str
    claim: str
    phase: str
    policy: str
    previous: str | None


class Drill:
    """50 bound volumes, of which pods write to 6."""

    def __init__(self, lab: Lab) -> None:
        self.cluster = Objects(lab)
        self.server = lab.guest("server1")
        self.nodes = [lab.guest("node1"), lab.guest("node2")]
        self.directories: dict[str, str] = {}

    def start(self) -> None:
        for node in self.nodes:
            node.ssh(f"{CTR} tag {OLD_IMAGE} {NEW_IMAGE}")
        writers.forget(self.nodes)
        for name in WRITING + QUIET:
            self.cluster.claim(name, KEPT if name.endswith("0") else DELETED)
        bound = set(WRITING + QUIET)
        self.cluster.wait("the claims are bound", lambda: bound <= {one.claim for one in self.volumes().values()}, 900)
        volumes = {one.claim: name for name, one in self.volumes().items()}
        self.directories = {name: f"{SHARE}/default-{name}-{volumes[name]}" for name in WRITING}
        self.server.ssh(FILL)
        for number, name in enumerate(WRITING):
            spec = writers.spec(name, claim=name, node=self.nodes[number % 2].machine.name)
            body = {"metadata": {"name": name, "labels": {"drill": "upgrade"}}, "spec": spec}
            self.cluster.request("POST", self.cluster.pods, body)
        self.cluster.wait("all pods run", self.all_run, 600)
        self.cluster.wait("all pods write", lambda: set(WRITING) == set(writers.acknowledged(self.nodes)))

    def volumes(self) -> dict[str, Volume]:
        """All volumes of the cluster that are or were bound."""
        return {
            one["metadata"]["name"]: Volume(
                one["metadata"]["uid"],
                one["spec"]["claimRef"]["name"],
                one["status"]["phase"],
                one["spec"]["persistentVolumeReclaimPolicy"],
                one["metadata"].get("annotations", {}).get("storage.clusterkit/previous-policy"),
            )
            for one in self.cluster.request("GET", VOLUMES)["items"]
            if one["status"].get("phase") in {"Bound", "Released", "Failed"}
        }

    def mine(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.request("GET", f"{self.cluster.pods}?{MINE}")["items"]
        return found

    def all_run(self) -> bool:
        return all(one["status"]["phase"] == "Running" for one in self.mine())

    def pods(self) -> dict[str, tuple[str, str, int]]:
        """Uid, container and number of restarts of the pods that write."""
        return {
            one["metadata"]["name"]: (one["metadata"]["uid"], status["containerID"], status["restartCount"])
            for one in self.mine()
            for status in one["status"]["containerStatuses"]
        }

    def data(self) -> str:
        """Names, owners, modes, times and checksums of all files that nobody writes."""
        return self.server.ssh(LOOK)

    def assert_pods_have_written_all_the_time(self) -> None:
        before = writers.acknowledged(self.nodes)

        def all_go_on() -> bool:
            now = writers.acknowledged(self.nodes)
            return all(len(now[name]) > len(before[name]) + 3 for name in WRITING)

        self.cluster.wait("all pods write on", all_go_on)
        acknowledged = writers.acknowledged(self.nodes)
        assert set(acknowledged) == set(WRITING), "a pod has seen an error"
        for name, lines in acknowledged.items():
            assert lines == [str(number + 1) for number in range(len(lines))], f"{name} has begun anew"
        writers.assert_nothing_lost(acknowledged, writers.written(self.server, self.directories))


def inventory() -> tuple[dict[str, Any], dict[str, Any]]:
    """The provisioner and the class of the bootstrap."""
    values = yaml.safe_load((INVENTORY / "group_vars/all.yml").read_text())
    (provisioner,), (kept,) = values["k8s_storage_provisioners"], values["k8s_storage_classes"]
    return provisioner, kept


def storage(image: str, archive: str) -> dict[str, Any]:
    """Provisioner and classes of the inventory; and one class more, whose volumes go with their claims."""
    provisioner, kept = inventory()
    more = {"parameters": {"archiveOnDelete": archive}, "allow_recreate": True}
    return {
        "k8s_storage_provisioners": [{**provisioner, "image": image}],
        "k8s_storage_classes": [kept, {**kept, "name": DELETED, "reclaim_policy": "Delete", **more}],
    }


def run(playbook: str, *options: str, **variables: Any) -> Play:
    done = play(f"clusterkit.storage.{playbook}", *options, "-e", json.dumps(variables), timeout=2400)
    assert done.status == 0, done.output[-5000:]
    return done


def listed(volumes: Mapping[str, Volume]) -> str:
    """Volumes with policy Delete, as the role names them when it holds them."""
    return f"{', '.join(sorted(name for name, one in volumes.items() if one.policy == 'Delete'))}: set to Retain"


def held(volume: Volume) -> Volume:
    return volume._replace(policy="Retain", previous="Delete") if volume.policy == "Delete" else volume


def test_no_volume_no_line_and_no_pod_is_lost_by_upgrade_and_teardown(restored: Lab) -> None:
    drill, cluster = Drill(restored), Objects(restored)
    run("site", "--tags=cluster", **storage(OLD_IMAGE, "false"))
    drill.start()
    volumes, pods, data = drill.volumes(), drill.pods(), drill.data()
    assert {one.policy for one in volumes.values() if one.claim in QUIET} == {"Delete", "Retain"}
    assert {restarts for _uid, _container, restarts in pods.values()} == {0}
    assert data.count("/deep/.hidden/file") == 2 * len(QUIET), "each is listed, and its checksum"
    old = cluster.request("GET", f"{CLASSES}/{DELETED}")

    upgraded = run("site", "--tags=cluster", **storage(NEW_IMAGE, "true"))
    assert "is upgraded: image" in upgraded.words, upgraded.output[-5000:]
    assert "is deleted and made again" in upgraded.words, upgraded.output[-5000:]
    assert listed(volumes) in upgraded.words, upgraded.output[-5000:]
    assert drill.volumes() == volumes
    assert drill.pods() == pods
    assert drill.data() == data
    drill.assert_pods_have_written_all_the_time()
    new = cluster.request("GET", f"{CLASSES}/{DELETED}")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["parameters"] == {"archiveOnDelete": "true"}
    deployment = cluster.request("GET", f"{DEPLOYMENTS}/{PROVISIONER}")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == NEW_IMAGE
    # The new provisioner is at work.
    cluster.claim("later", DELETED)
    later = cluster.volume_of("later")
    volumes = drill.volumes()
    assert volumes[later].policy == "Delete"

    gone = run("teardown", teardown_confirm=True, **storage(NEW_IMAGE, "true"))
    assert listed(volumes) in gone.words, gone.output[-5000:]
    assert PROVISIONER not in cluster.names(DEPLOYMENTS)
    assert not {KEPT, DELETED} & cluster.names(CLASSES)
    after = {name: held(one) for name, one in volumes.items()}
    assert drill.volumes() == after
    assert drill.pods() == pods
    assert drill.data() == data
    drill.assert_pods_have_written_all_the_time()

    # What is released now is kept when a provisioner comes back; the others are as they were.
    cluster.delete_claims("quiet-01")
    (released,) = (name for name, one in after.items() if one.claim == "quiet-01")
    cluster.wait("its volume is released", lambda: cluster.phase(released) == "Released")
    again = run("site", "--tags=cluster", **storage(NEW_IMAGE, "true"))
    assert f"keep Retain: {released}" in again.words, again.output[-5000:]
    # Only a provisioner at work could have removed anything.
    cluster.claim("last", DELETED)
    last = cluster.volume_of("last")
    found = drill.volumes()
    assert {name: one for name, one in found.items() if name != last} == {
        **volumes,
        released: after[released]._replace(phase="Released"),
    }
    assert drill.pods() == pods
    assert drill.data() == data
    drill.assert_pods_have_written_all_the_time()
    assert set(WRITING + QUIET) - cluster.names(cluster.claims) == {"quiet-01"}


def fill(source: str, folder: Path, lab: Lab) -> dict[str, str]:
    """Push the images of provisioner and test pods; return the name of each in the registry `source`.

    They are not those of the nodes: another file is in their only layer, so that it has to be fetched.
    """
    busybox = {"bin/busybox": lab.plan.part("machine") / "busybox"}
    provisioner = {"provisioner": binaries.provisioner() / "provisioner"}
    applets = {f"bin/{applet}": "busybox" for applet in containers.APPLETS}
    pushed: dict[str, str] = {}
    for image, entrypoint, files, links in (
        (containers.PROVISIONER, ["/provisioner"], provisioner, {}),
        (containers.BUSYBOX, [], busybox, applets),
    ):
        archive = folder / f"image-{len(pushed)}.tar"
        containers.write_image(archive, [image], entrypoint, files, {**links, "of-the-registry": "nothing"})
        pushed[image] = f"{source}/{image.partition('/')[2]}"
        argv = ["skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{pushed[image]}"]
        subprocess.run(argv, check=True, capture_output=True)
    return pushed


def test_bootstrap_with_nothing_but_a_private_registry(tmp_path: Path, restored: Lab) -> None:
    cluster, (provisioner, _kept) = Objects(restored), inventory()
    with registry(tmp_path / "target") as target:
        own = f"{target}/storage"
        with registry(tmp_path / "source") as source:
            pushed = fill(source, tmp_path, restored)
            mirrored = run(
                "mirror",
                k8s_storage_image_registry=own,
                k8s_storage_provisioners=[{**provisioner, "image": pushed[containers.PROVISIONER]}],
                verify_image=pushed[containers.BUSYBOX],
                mirror_tls_verify=False,
                mirror_source_tls_verify=False,
            )
        assert mirrored.recap("localhost")["changed"] == 1, mirrored.output
        port = target.rpartition(":")[2]
        for node in (restored.guest("node1"), restored.guest("node2")):
            # The registry under the same name as here. Of the images, only the one that every pod needs stays.
            node.ssh(
                f"set -e; systemd-run --unit=registry socat TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork "
                f"TCP:{HOST_AS_SEEN_BY_GUESTS}:{port}; "
                f"{CTR} ls -q | grep -v -e /pause: -e ^sha256: | xargs {CTR} rm; ! {CTR} ls -q | grep -q sig-storage"
            )
        on_node1 = {**provisioner, "node_selector": {"kubernetes.io/hostname": "node1"}}
        run("site", k8s_storage_image_registry=own, k8s_storage_provisioners=[on_node1])
        (pod,) = (
            one
            for one in cluster.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
            if not one["metadata"].get("deletionTimestamp")
        )
    assert pod["spec"]["nodeName"] == "node1"
    assert all(one["ready"] for one in pod["status"]["containerStatuses"])
    assert pod["spec"]["containers"][0]["image"] == f"{own}/{OLD_IMAGE.partition('/')[2]}"
    # What the verification's pods need comes from there too.
    log = (tmp_path / "target/registry.log").read_text()
    pulled = set(re.findall(r'"GET /v2/storage/(\S+)/blobs/\S+ HTTP/1\.1" 20[06] .*"containerd/', log))
    assert pulled == {image.partition("/")[2].partition(":")[0] for image in pushed}, log[-3000:]
