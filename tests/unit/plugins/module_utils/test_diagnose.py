# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cause by the facts that show it, none on a healthy cluster, and no facts that raise."""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _diagnose,
    _diagnose_facts,
    _diagnose_fit,
    _diagnose_mounts,
    _diagnose_objects,
    _diagnose_pods,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose import Target, diagnose
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding
from ansible_collections.clusterkit.storage.tests.properties import examples
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[4]
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
LONG_AGO, JUST_NOW = "2027-01-15T07:00:00Z", "2027-01-15T07:59:55Z"
OURS = "example.com/nfs"
CSI_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
GROUPS = {"": ["v1"], "apps": ["v1"], "networking.k8s.io": ["v1", "v1beta1"], "storage.k8s.io": ["v1"]}


def metadata(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    return {"name": name, **where, "uid": f"uid-{name}", "creationTimestamp": LONG_AGO, **more}


def claim(name: str = "data", phase: str = "Pending", namespace: str = "shop", **more: Any) -> dict[str, Any]:
    about = {key: more.pop(key) for key in ("annotations", "deletionTimestamp", "finalizers") if key in more}
    status = {"phase": phase, **more.pop("status", {})}
    wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": more.pop("size", "1Gi")}}}
    spec = {**wanted, "storageClassName": "nfs", **more}
    if spec["storageClassName"] is None:
        del spec["storageClassName"]
    if phase == "Bound":
        status.setdefault("capacity", {"storage": "1Gi"})
    return {"metadata": metadata(name, namespace, **about), "spec": spec, "status": status}


def volume(name: str = "pv", phase: str = "Available", **more: Any) -> dict[str, Any]:
    about = {key: more.pop(key) for key in ("annotations", "labels", "deletionTimestamp", "finalizers") if key in more}
    spec = {
        "capacity": {"storage": more.pop("size", "1Gi")},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": more.pop("policy", "Retain"),
        "storageClassName": "nfs",
        "nfs": {"server": "nfs1", "path": "/srv/data"},
        "mountOptions": ["hard"],
    }
    status = {"phase": phase, **more.pop("status", {})}
    return {"metadata": metadata(name, **about), "spec": {**spec, **more}, "status": status}


def held_by(name: str = "data", namespace: str = "shop", uid: str | None = None) -> dict[str, Any]:
    return {"namespace": namespace, "name": name, "uid": f"uid-{name}" if uid is None else uid}


def storage_class(name: str = "managed", provisioner: str = OURS, **more: Any) -> dict[str, Any]:
    return {"metadata": metadata(name, **more.pop("metadata", {})), "provisioner": provisioner, **more}


def pod(name: str = "web", phase: str = "Running", namespace: str = "shop", **more: Any) -> dict[str, Any]:
    keys = ("labels", "deletionTimestamp", "finalizers")
    about = {key: more.pop(key) for key in keys if key in more}
    status = {"phase": phase, **more.pop("status", {})}
    spec = {
        "nodeName": "node1",
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
    }
    return {"metadata": metadata(name, namespace, **about), "spec": {**spec, **more}, "status": status}


def event(about: str, reason: str, message: str, time: str = LONG_AGO) -> dict[str, Any]:
    return {"involvedObject": {"uid": f"uid-{about}"}, "reason": reason, "message": message, "lastTimestamp": time}


def failed_mount(output: str) -> dict[str, Any]:
    """As kubelet 1.37 writes it (operation_generator.go, mount_linux.go)."""
    return event(
        "web",
        "FailedMount",
        'MountVolume.SetUp failed for volume "pv" : mount failed: exit status 32\nMounting command: mount\n'
        "Mounting arguments: -t nfs -o hard nfs1:/srv/data /var/lib/kubelet/pods/uid-web/volumes/kubernetes.io~nfs/pv\n"
        f"Output: {output}",
    )


def controller(name: str = "provisioner", replicas: int = 1, ready: int = 1, **more: Any) -> dict[str, Any]:
    environment = [{"name": "PROVISIONER_NAME", "value": more.pop("provisioner", OURS)}]
    container = {"name": "p", "image": "example.com/nfs-subdir-external-provisioner:v4.0.2", "env": environment, **more}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": metadata(name, "storage"), "spec": spec, "status": {"readyReplicas": ready}}


def provisioner_pod(reason: str = "", message: str = "", **last: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}}
    statuses = [{"name": "p", "image": "example.com/p:1", "state": state, "restartCount": 7, "lastState": last}]
    status = {"containerStatuses": statuses}
    return pod("provisioner-0", namespace="storage", labels={"app": "provisioner"}, volumes=[], status=status)


def has_ended(status: int, restarts: int = 7) -> dict[str, Any]:
    """The provisioner's pod between two tries, before kubelet says that it waits."""
    found = provisioner_pod()
    found["status"]["containerStatuses"][0] |= {"state": {"terminated": {"exitCode": status}}, "restartCount": restarts}
    return found


def service(**more: Any) -> dict[str, Any]:
    return {"metadata": metadata("web", "shop", **more), "spec": {"selector": {"app": "web"}}}


def endpoints(**conditions: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "web"}
    return {"metadata": metadata("web-1", "shop", labels=labels), "endpoints": [{"conditions": conditions}]}


def node(name: str = "node1", ready: str = "True", **labels: str) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": "192.0.2.21"}, {"type": "Hostname", "address": name}]
    status = {"addresses": addresses, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": metadata(name, labels=labels), "status": status}


def workload(kind: str = "Deployment", **more: Any) -> dict[str, Any]:
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}},
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata("web", "shop"), "spec": {**spec, **more}}


def manifest(version: str, kind: str = "Ingress") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}}


def exports(host: str = "192.0.2.0/24", path: str = "/srv/data", *options: str, **more: Any) -> list[dict[str, Any]]:
    table = [{"path": path, "host": host, "options": ["rw", "anonuid=65534", *(options or ("secure", "root_squash"))]}]
    return [
        {"host": "server1", "addresses": ["nfs1"], "exports": table, "versions": ["4.1", "4.2"], "threads": 8, **more}
    ]


def directories(**one: Any) -> list[dict[str, Any]]:
    entry = {"path": "/srv/data", "exists": True, "uid": 0, "gid": 0, "mode": "0755", **one}
    return [{"host": "server1", "addresses": ["nfs1"], "directories": [entry]}]


def mounts(health: str = "ok", answers: bool = True, uid: str = "uid-web") -> list[dict[str, Any]]:
    place = {"uid": uid, "volume": "pv", "kind": "nfs"}
    one = {"path": "/var/lib/kubelet/x", "source": "nfs1:/srv/data", "pod": place, "health": health}
    names = ["node1", "192.0.2.21"]
    return [
        {
            "host": "node1",
            "addresses": names,
            "mounts": [one],
            "servers": [{"address": "nfs1", "port": 2049, "answers": answers}],
        }
    ]


def facts(**more: Any) -> Facts:
    """A healthy cluster, with what is given in place of its parts."""
    healthy = Facts(
        now=NOW,
        claims=[claim(phase="Bound", volumeName="pv")],
        volumes=[volume(phase="Bound", claimRef=held_by())],
        classes=[storage_class()],
        pods=[pod(labels={"app": "web"}), provisioner_pod()],
        events=[],
        deployments=[workload(), controller()],
        statefulsets=[],
        services=[service()],
        slices=[endpoints(ready=True)],
        nodes=[node(disk="ssd")],
        ingresses=[{"metadata": metadata("web", "shop")}],
        groups=GROUPS,
        minor=37,
        provisioners={OURS: "running"},
    )
    return replace(healthy, **more)


def left_volume(phase: str, policy: str, *, by: str = "", status: Any = None, **more: Any) -> Facts:
    """A volume whose claim is gone, made by hand or by a provisioner, and nothing that uses it."""
    made = {"pv.kubernetes.io/provisioned-by": by} if by else {}
    one = volume(phase=phase, policy=policy, claimRef=held_by(), annotations=made, status=status or {})
    return facts(**{"claims": [], "pods": [], "services": [], "volumes": [one], **more})


def waiting_pod(*events: Any, **more: Any) -> Facts:
    """A pod whose containers wait for the mount."""
    volumes = [volume(phase="Bound", claimRef=held_by(), mountOptions=more.pop("options", ["hard"]))]
    return facts(pods=[pod(phase="Pending")], events=list(events), volumes=volumes, services=[], **more)


def complaining_pod(line: str, **more: Any) -> Facts:
    context = {"runAsUser": more.pop("user")} if "user" in more else {}
    state = {"terminated": {"exitCode": 1, "message": line}}
    status = {
        "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": state}]
    }
    one = pod(securityContext={**context, **more.pop("groups", {})}, status=status)
    return facts(pods=[one], services=[], **more)


def dynamic(**more: Any) -> dict[str, Any]:
    return {"claims": [claim(storageClassName="managed")], "volumes": [], "services": [], **more}


DENIED = "mount.nfs: access denied by server while mounting nfs1:/srv/data"
NO_SUCH = "mount.nfs: mounting nfs1:/srv/data failed, reason given by server: No such file or directory"
NOT_PERMITTED = "mount.nfs: Operation not permitted for nfs1:/srv/data on /var/lib/kubelet/pods/x"
HELPER = (
    "mount: /var/lib/kubelet/pods/x: bad option; for several filesystems (e.g. nfs, cifs) you might need a "
    "/sbin/mount.<type> helper program."
)
NEWER_HELPER = (
    "mount: /var/lib/kubelet/pods/x: fsconfig() failed: NFS: mount program didn't pass remote address.\n"
    "       dmesg(1) may have more information after failed mount system call."
)
DEADLINE = (
    "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[]: "
    "context deadline exceeded"
)
FORBIDDEN = (
    'E1 reflector.go:127] failed to list: persistentvolumes is forbidden: User "system:serviceaccount:storage:p" '
    'cannot list resource "persistentvolumes" in API group "" at the cluster scope'
)
SELF_LINK = 'E1019 provision "shop/data" class "managed": unexpected error getting claim reference: selfLink was empty'
OLD = "quay.io/external_storage/nfs-client-provisioner:latest"
OVERDUE = {"deletionTimestamp": LONG_AGO}

# Cause, certainty, words of the sentence, facts.
CASES: list[tuple[str, str, str, Facts]] = [
    # Claims and volumes made by hand.
    ("volume-missing", "certain", "names volume gone", facts(claims=[claim(volumeName="gone")])),
    (
        "volume-deleting",
        "certain",
        "is being deleted",
        facts(claims=[claim(volumeName="pv")], volumes=[volume(deletionTimestamp=JUST_NOW)]),
    ),
    (
        "volume-taken",
        "certain",
        "bound to other/c",
        facts(claims=[claim(volumeName="pv")], volumes=[volume(phase="Bound", claimRef=held_by("c", "other"))]),
    ),
    (
        "volume-reserved",
        "certain",
        "reserved for other/c",
        facts(claims=[claim()], volumes=[volume(claimRef=held_by("c", "other", ""))]),
    ),
    (
        "volume-released",
        "certain",
        "Released, not Available",
        facts(claims=[claim()], volumes=[volume(phase="Released", claimRef=held_by(uid="older"))]),
    ),
    ("volume-mismatch-size", "certain", "asks for 2Gi", facts(claims=[claim(size="2Gi")], volumes=[volume()])),
    (
        "volume-mismatch-size",
        "certain",
        "volume b has 2Gi",
        facts(claims=[claim(size="3Gi")], volumes=[volume("a"), volume("b", size="2Gi"), volume("c")]),
    ),
    (
        "volume-mismatch-size",
        "certain",
        "pv has 1Gi",
        facts(claims=[claim(size="2Gi")], volumes=[volume(claimRef=held_by(uid=""))]),
    ),
    (
        "volume-mismatch-access-modes",
        "certain",
        "ReadWriteOnce",
        facts(claims=[claim(accessModes=["ReadWriteOnce"])], volumes=[volume()]),
    ),
    (
        "volume-mismatch-volume-mode",
        "certain",
        "volumeMode",
        facts(claims=[claim(volumeMode="Block")], volumes=[volume()]),
    ),
    (
        "volume-mismatch-class",
        "certain",
        "class nfs",
        facts(
            claims=[claim(storageClassName="other", selector={"matchLabels": {"pv": "a"}})],
            volumes=[volume(labels={"pv": "a"})],
        ),
    ),
    (
        "volume-mismatch-class",
        "certain",
        "no class",
        facts(claims=[claim(storageClassName="", volumeName="pv")], volumes=[volume()]),
    ),
    (
        "volume-mismatch-selector",
        "certain",
        "labels pv=b",
        facts(claims=[claim(selector={"matchLabels": {"pv": "b"}})], volumes=[volume(labels={"pv": "a"})]),
    ),
    (
        "volume-mismatch-selector",
        "certain",
        "by expressions",
        facts(claims=[claim(selector={"matchExpressions": [{"key": "pv", "operator": "Exists"}]})], volumes=[volume()]),
    ),
    (
        "volume-mismatch",
        "certain",
        "size, access-modes",
        facts(claims=[claim(size="2Gi", accessModes=["ReadWriteOnce"])], volumes=[volume()]),
    ),
    (
        "no-volume-left",
        "certain",
        "in use",
        facts(claims=[claim()], volumes=[volume(phase="Bound", claimRef=held_by("c", "other"))]),
    ),
    (
        "no-volume-left",
        "certain",
        "makes no volumes",
        facts(claims=[claim()], volumes=[], classes=[storage_class("nfs", "kubernetes.io/no-provisioner")]),
    ),
    ("no-class", "certain", 'storageClassName ""', facts(claims=[claim(storageClassName="")], volumes=[volume()])),
    ("no-default-class", "certain", "the default", facts(claims=[claim(storageClassName=None)], volumes=[])),
    ("class-unknown", "certain", "(managed?)", facts(claims=[claim(storageClassName="manage")], volumes=[])),
    (
        "class-unknown",
        "certain",
        "class fast,",
        facts(claims=[claim(annotations={"volume.beta.kubernetes.io/storage-class": "fast"})], volumes=[], classes=[]),
    ),
    (
        "waits-for-pod",
        "certain",
        "start the pod",
        facts(
            claims=[claim(storageClassName="late")],
            volumes=[],
            pods=[],
            services=[],
            classes=[storage_class("late", volumeBindingMode="WaitForFirstConsumer")],
            asked=True,
        ),
    ),
    (
        "claim-in-use",
        "certain",
        "pods use it (web)",
        facts(claims=[claim(phase="Bound", volumeName="pv", finalizers=["kubernetes.io/pvc-protection"], **OVERDUE)]),
    ),
    (
        "claim-lost",
        "certain",
        "whose object is gone",
        facts(
            claims=[claim(phase="Lost", volumeName="gone")],
            volumes=[],
            events=[
                event("data", "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
            ],
        ),
    ),
    (
        "claim-lost",
        "certain",
        "now bound to other/c",
        facts(
            claims=[claim(phase="Lost", volumeName="pv")],
            volumes=[volume(phase="Bound", claimRef=held_by("c", "other"))],
        ),
    ),
    (
        "capacity-disagrees",
        "certain",
        "says 1Gi, its volume pv 3Gi",
        facts(volumes=[volume(phase="Bound", claimRef=held_by(), size="3Gi")]),
    ),
    (
        "capacity-disagrees",
        "certain",
        "asks for 2Gi but has 1Gi",
        facts(claims=[claim(phase="Bound", volumeName="pv", size="2Gi", status={"conditions": [{"type": "Unused"}]})]),
    ),
    # Provisioners.
    (
        "provisioner-selflink",
        "certain",
        "no feature gate",
        facts(**dynamic(logs={("storage", "provisioner-0", "p"): SELF_LINK})),
    ),
    ("provisioner-selflink", "probable", "no feature gate", facts(**dynamic(deployments=[controller(image=OLD)]))),
    (
        "provisioner-without-rights",
        "certain",
        "may not create persistentvolumes",
        facts(**dynamic(denied={OURS: ["create persistentvolumes"]})),
    ),
    (
        "provisioner-without-rights",
        "probable",
        "may not list persistentvolumes",
        facts(**dynamic(logs={("storage", "provisioner-0", "p"): FORBIDDEN})),
    ),
    (
        "provisioner-crash-looping",
        "certain",
        "crashes again",
        facts(
            **dynamic(
                pods=[provisioner_pod("CrashLoopBackOff", terminated={"exitCode": 1, "message": "panic: no share"})]
            )
        ),
    ),
    ("provisioner-crash-looping", "certain", "crashes again", facts(**dynamic(pods=[has_ended(1)]))),
    ("provisioning-slow", "probable", "over a minute", facts(**dynamic(pods=[has_ended(1, restarts=0)]))),
    ("provisioning-slow", "probable", "over a minute", facts(**dynamic(pods=[has_ended(0)]))),
    (
        "provisioner-image-not-pulled",
        "certain",
        "k8s_storage_image_registry",
        facts(**dynamic(pods=[provisioner_pod("ImagePullBackOff", 'Back-off pulling image "example.com/p:1"')])),
    ),
    (
        "provisioner-not-running",
        "certain",
        "no Deployment runs",
        facts(**dynamic(provisioners={OURS: "stopped"}, deployments=[])),
    ),
    (
        "provisioner-not-running",
        "probable",
        "no Deployment runs",
        facts(**dynamic(provisioners={OURS: "stopped"}, deployments=None)),
    ),
    (
        "provisioner-not-running",
        "certain",
        "scale it up",
        facts(**dynamic(provisioners={OURS: "stopped"}, deployments=[controller(replicas=0, ready=0)])),
    ),
    (
        "provisioner-not-running",
        "certain",
        "has no ready pod",
        facts(
            **dynamic(
                provisioners={OURS: "stopped"},
                deployments=[controller(ready=0)],
                events=[event("provisioner-0", "FailedMount", "mount failed")],
            )
        ),
    ),
    (
        "provisioner-not-running",
        "certain",
        "its lock is not renewed",
        facts(**dynamic(provisioners={OURS: "stopped"})),
    ),
    (
        "provisioner-not-running",
        "probable",
        "has no ready pod",
        facts(**dynamic(provisioners=None, deployments=[controller(ready=0)])),
    ),
    (
        "provisioning-failed",
        "certain",
        "cannot make its volume",
        facts(**dynamic(events=[event("data", "ProvisioningFailed", "claim Selector is not supported")])),
    ),
    ("provisioning-slow", "probable", "over a minute", facts(**dynamic())),
    (
        "provisioner-not-running",
        "certain",
        "csi.example.com",
        facts(
            **dynamic(
                provisioners={"csi.example.com": "stopped"},
                classes=[storage_class(provisioner="csi.example.com", volumeBindingMode="WaitForFirstConsumer")],
                claims=[claim(storageClassName="managed", annotations={"volume.kubernetes.io/selected-node": "node1"})],
                deployments=[controller(ready=0, args=["--drivername=csi.example.com"])],
            )
        ),
    ),
    # Pods.
    (
        "claim-in-other-namespace",
        "certain",
        "namespace shop, not in test",
        facts(pods=[pod(phase="Pending", namespace="test")], services=[]),
    ),
    (
        "claim-missing",
        "certain",
        "make it in namespace shop",
        facts(
            claims=[],
            volumes=[],
            services=[],
            pods=[
                pod(
                    phase="Pending",
                    status={"conditions": [{"reason": "Unschedulable", "message": "0/1 nodes are available"}]},
                )
            ],
        ),
    ),
    (
        "no-node-matches",
        "certain",
        "label zone=b",
        facts(pods=[pod(phase="Pending", nodeName="", nodeSelector={"disk": "ssd", "zone": "b"})], services=[]),
    ),
    (
        "pod-terminating-dead-mount",
        "certain",
        "nfs1:/srv/data on node1 is hung",
        facts(pods=[pod(**OVERDUE)], services=[], mounts=mounts("hung")),
    ),
    ("pod-terminating-dead-mount", "probable", "nfs1", facts(pods=[pod(**OVERDUE)], services=[])),
    (
        "pod-terminating-dead-mount",
        "probable",
        "nfs1",
        facts(pods=[pod(**OVERDUE)], services=[], exports=exports(threads=0)),
    ),
    (
        "pod-terminating-node-gone",
        "certain",
        "not heard of",
        facts(pods=[pod(**OVERDUE)], services=[], nodes=[node(ready="Unknown")]),
    ),
    ("pod-terminating-node-gone", "certain", "node node1", facts(pods=[pod(**OVERDUE)], services=[], nodes=[])),
    (
        "pod-terminating-finalizer",
        "certain",
        "example.com/f",
        facts(pods=[pod(finalizers=["example.com/f"], **OVERDUE)], services=[], mounts=mounts()),
    ),
    # Mounts.
    (
        "mount-access-denied",
        "probable",
        "denies node node1",
        waiting_pod(failed_mount(DENIED), exports=exports("198.51.100.0/24")),
    ),
    ("mount-access-denied", "probable", "denies node node1", waiting_pod(failed_mount(DENIED))),
    (
        "mount-access-denied",
        "probable",
        "denies node node1",
        waiting_pod(failed_mount(DENIED), exports=exports("@nodes")),
    ),
    (
        "mount-access-denied",
        "certain",
        "no client of export /srv/data",
        waiting_pod(failed_mount(DENIED), exports=exports("198.51.100.0/24"), mounts=mounts()),
    ),
    (
        "mount-access-denied",
        "certain",
        "does not export /srv/data",
        waiting_pod(failed_mount(DENIED), exports=exports(path="/srv/other")),
    ),
    (
        "mount-access-denied",
        "certain",
        "no client of export /srv",
        waiting_pod(failed_mount(NO_SUCH), exports=exports("198.51.100.7", "/srv"), mounts=mounts()),
    ),
    ("mount-illegal-port", "certain", "noresvport", waiting_pod(failed_mount("mount.nfs: illegal port 40000"))),
    ("mount-illegal-port", "probable", "noresvport", waiting_pod(failed_mount(NOT_PERMITTED), options=["noresvport"])),
    (
        "mount-illegal-port",
        "certain",
        "add insecure",
        waiting_pod(failed_mount(DENIED), options=["noresvport"], exports=exports("*")),
    ),
    (
        "mount-access-denied",
        "probable",
        "denies",
        waiting_pod(failed_mount(DENIED), options=["noresvport"], exports=exports("*", "/srv/data", "insecure")),
    ),
    ("mount-not-permitted", "probable", "security flavor", waiting_pod(failed_mount(NOT_PERMITTED))),
    (
        "mount-access-denied",
        "certain",
        "does not export",
        waiting_pod(failed_mount(NOT_PERMITTED), exports=exports(path="/other")),
    ),
    ("mount-no-such-directory", "probable", "does not exist", waiting_pod(failed_mount(NO_SUCH))),
    (
        "mount-no-such-directory",
        "certain",
        "does not exist",
        waiting_pod(failed_mount(NO_SUCH), exports=exports(), directories=directories(exists=False)),
    ),
    (
        "mount-no-such-directory",
        "certain",
        "does not export",
        waiting_pod(failed_mount(NO_SUCH), exports=exports(path="/other")),
    ),
    (
        "mount-protocol-not-supported",
        "probable",
        "NFS version",
        waiting_pod(failed_mount("mount.nfs: requested NFS version or transport protocol is not supported")),
    ),
    (
        "mount-protocol-not-supported",
        "certain",
        "nfsvers",
        waiting_pod(failed_mount("mount.nfs: Protocol not supported"), options=["nfsvers=3"], exports=exports()),
    ),
    ("mount-helper-missing", "certain", "nfs-common", waiting_pod(failed_mount(HELPER))),
    ("mount-helper-missing", "certain", "nfs-common", waiting_pod(failed_mount(NEWER_HELPER))),
    (
        "mount-server-unreachable",
        "probable",
        "port 2049",
        waiting_pod(failed_mount("mount.nfs: Connection refused for nfs1:/srv/data on /var/lib/kubelet/pods/x")),
    ),
    (
        "mount-server-unreachable",
        "certain",
        "does not answer node node1",
        waiting_pod(event("web", "FailedMount", DEADLINE), mounts=mounts("unreachable", answers=False)),
    ),
    (
        "mount-server-unreachable",
        "probable",
        "does not answer",
        waiting_pod(failed_mount("mount.nfs: Connection timed out"), mounts=mounts()),
    ),
    (
        "mount-server-name-unknown",
        "certain",
        "cannot resolve nfs1",
        waiting_pod(failed_mount("mount.nfs: Failed to resolve server nfs1: Name or service not known")),
    ),
    (
        "mount-option-refused",
        "certain",
        "nfs(5)",
        waiting_pod(failed_mount("mount.nfs: an incorrect mount option was specified for /x"), options=["hrad"]),
    ),
    ("mount-stale", "probable", "stale", waiting_pod(failed_mount("mount.nfs: Stale file handle"))),
    (
        "mount-statd-not-running",
        "certain",
        "rpc.statd",
        waiting_pod(failed_mount("mount.nfs: rpc.statd is not running but is required for remote locking.")),
    ),
    ("mount-failed", "probable", "cannot mount", waiting_pod(failed_mount("mount.nfs: mount system call failed"))),
    (
        "permission-denied",
        "certain",
        "uid 1000 may not write to nfs1:/srv/data (owner 0:0, mode 0755)",
        complaining_pod("touch: /data/x: Permission denied", user=1000, exports=exports(), directories=directories()),
    ),
    (
        "permission-denied",
        "certain",
        "uid 0, uid 65534 there, may not write",
        complaining_pod("touch: /data/x: Permission denied", user=0, exports=exports(), directories=directories()),
    ),
    (
        "permission-denied",
        "certain",
        "uid 1000, uid 65534 there",
        complaining_pod(
            "/data/x: Operation not permitted",
            user=1000,
            exports=exports("*", "/srv/data", "all_squash"),
            directories=directories(uid=1000),
        ),
    ),
    ("permission-denied", "probable", "runAsUser", complaining_pod("EACCES: permission denied")),
    (
        "permission-denied",
        "probable",
        "runAsUser",
        complaining_pod(
            "/data/x: Permission denied",
            user=1000,
            groups={"fsGroup": 5, "supplementalGroups": [6, "x"]},
            exports=exports(),
            directories=directories(gid=6, mode="0770"),
        ),
    ),
    (
        "permission-denied",
        "probable",
        "runAsUser",
        complaining_pod(
            "/data/x: Permission denied",
            user=0,
            exports=exports("*", "/srv/data", "no_root_squash"),
            directories=directories(mode="0000"),
        ),
    ),
    (
        "permission-denied",
        "probable",
        "runAsUser",
        complaining_pod("/data/x: Permission denied", user=7, exports=exports(), directories=directories(mode="odd")),
    ),
    ("read-only-file-system", "probable", "read-only", complaining_pod("/data/x: Read-only file system")),
    (
        "read-only-file-system",
        "certain",
        "export it rw",
        complaining_pod("/data/x: Read-only file system", exports=exports("*", "/srv/data", "ro")),
    ),
    # Volumes.
    (
        "volume-terminating-in-use",
        "certain",
        "its data stays",
        facts(
            volumes=[
                volume(
                    phase="Bound",
                    claimRef=held_by(),
                    deletionTimestamp=JUST_NOW,
                    finalizers=["kubernetes.io/pv-protection"],
                )
            ]
        ),
    ),
    (
        "volume-terminating-in-use",
        "probable",
        "its data too",
        facts(
            claims=None,
            pods=[],
            services=[],
            volumes=[
                volume(
                    phase="Bound",
                    policy="Delete",
                    claimRef=held_by(),
                    deletionTimestamp=JUST_NOW,
                    finalizers=["kubernetes.io/pv-protection"],
                )
            ],
        ),
    ),
    (
        "volume-terminating-provisioner",
        "certain",
        CSI_FINALIZER,
        facts(
            claims=[],
            pods=[],
            services=[],
            provisioners={OURS: "stopped"},
            volumes=[
                volume(annotations={"pv.kubernetes.io/provisioned-by": OURS}, finalizers=[CSI_FINALIZER], **OVERDUE)
            ],
        ),
    ),
    (
        "volume-terminating-provisioner",
        "probable",
        "that made it",
        facts(claims=[], pods=[], services=[], volumes=[volume(finalizers=[CSI_FINALIZER], **OVERDUE)]),
    ),
    (
        "volume-terminating-finalizer",
        "certain",
        "example.com/backup",
        facts(claims=[], pods=[], services=[], volumes=[volume(finalizers=["example.com/backup"], **OVERDUE)]),
    ),
    (
        "recycler-image",
        "certain",
        "gets no image",
        left_volume(
            "Released",
            "Recycle",
            pods=[
                pod(
                    "recycler-for-pv",
                    "Running",
                    "default",
                    volumes=[],
                    status={
                        "containerStatuses": [
                            {"image": "debian-base", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}
                        ]
                    },
                )
            ],
        ),
    ),
    (
        "recycler-image",
        "certain",
        "policy Retain",
        left_volume("Failed", "Recycle", events=[event("pv", "RecyclerPod", "Recycler pod: Failed to pull image x")]),
    ),
    (
        "volume-failed-no-deleter",
        "certain",
        "made by hand",
        left_volume("Failed", "Delete", status={"message": "error getting deleter volume plugin for volume"}),
    ),
    (
        "volume-failed-recycle",
        "certain",
        "could not empty it",
        left_volume("Failed", "Recycle"),
    ),
    (
        "volume-failed",
        "certain",
        "deletion went wrong",
        left_volume("Failed", "Delete", by=OURS),
    ),
    (
        "released-delete-without-provisioner",
        "certain",
        "destroys the data",
        left_volume("Released", "Delete", by=OURS, provisioners={OURS: "stopped"}),
    ),
    (
        "volume-delete-failed",
        "certain",
        "cannot delete it",
        left_volume(
            "Released", "Delete", by=OURS, events=[event("pv", "VolumeFailedDelete", "storageclass not found")]
        ),
    ),
    # Services and manifests.
    (
        "service-without-endpoints",
        "certain",
        "has app=web",
        facts(pods=[pod(labels={"name": "web"})], slices=[], deployments=[controller()]),
    ),
    ("service-without-endpoints", "certain", "is ready (web)", facts(slices=[endpoints(ready=False)])),
    ("service-without-endpoints", "certain", "no pod", facts(pods=[], slices=[], deployments=[])),
    (
        "selector-not-matching-template",
        "certain",
        "give both the same labels",
        facts(manifests=[workload(selector={"matchLabels": {"name": "web"}})]),
    ),
    ("selector-not-matching-template", "certain", "no spec.selector", facts(manifests=[workload(selector=None)])),
    (
        "api-version-removed",
        "certain",
        "gone since Kubernetes 1.22; write networking.k8s.io/v1",
        facts(manifests=[manifest("networking.k8s.io/v1beta1")]),
    ),
    (
        "api-version-removed",
        "certain",
        "write apps/v1",
        facts(manifests=[manifest("extensions/v1beta1", "Deployment")], minor=0),
    ),
    (
        "api-version-removed",
        "certain",
        "extensions/v1beta1",
        facts(
            ingresses=[
                {
                    "metadata": metadata(
                        "web",
                        "shop",
                        annotations={APPLIED: '{"apiVersion": "extensions/v1beta1", "kind": "Ingress"}'},
                    )
                },
                {"metadata": metadata("odd", "shop", annotations={APPLIED: "{"})},
                {"metadata": metadata("odder", "shop", annotations={APPLIED: "[]"})},
            ]
        ),
    ),
    (
        "api-version-not-served",
        "certain",
        "write networking.k8s.io/v1.",
        facts(manifests=[manifest("extensions/v1")]),
    ),
    (
        "api-version-not-served",
        "certain",
        "install what serves it",
        facts(manifests=[manifest("snapshot.storage.k8s.io/v1", "VolumeSnapshot")]),
    ),
]


@pytest.mark.parametrize(
    ("cause", "certainty", "words", "given"), CASES, ids=[f"{n}-{one[0]}" for n, one in enumerate(CASES)]
)
def test_each_cause_by_what_shows_it(cause: str, certainty: str, words: str, given: Facts) -> None:
    found = [one.as_dict() for one in diagnose(given)]
    assert [one["cause"] for one in found] == [cause], found
    assert found[0]["certainty"] == certainty
    assert words in found[0]["sentence"], found[0]["sentence"]
    assert len(found[0]["sentence"].split()) <= 30, found[0]["sentence"]
    assert found[0]["sentence"].endswith(".")
    assert bool(found[0]["check"]) is (certainty == "probable")


def test_every_cause_has_a_case_and_stands_in_the_guide() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "plugins/module_utils").glob("_diagnose*.py"))
    named = set(re.findall(r'^ +"([a-z]+(?:-[a-z]+)+)",$', code, re.MULTILINE))
    criteria = ("size", "access-modes", "volume-mode", "class", "selector")
    named |= {f"volume-mismatch-{one}" for one in criteria} | {"mount-no-such-directory", "mount-access-denied"}
    assert {one[0] for one in CASES} >= named
    guide = (ROOT / "docs/diagnosis.md").read_text()
    assert {one[0] for one in CASES} == set(re.findall(r"^\| `([a-z-]+)` \|", guide, re.MULTILINE))


HEALTHY: list[Facts] = [
    facts(),
    Facts(),
    # In the middle of its work.
    facts(claims=[claim(storageClassName="managed")], services=[], volumes=[volume(storageClassName="managed")]),
    facts(
        **dynamic(
            claims=[
                {**claim(storageClassName="managed"), "metadata": metadata("data", "shop", creationTimestamp=JUST_NOW)}
            ]
        )
    ),
    facts(claims=[claim()], volumes=[volume()]),
    facts(claims=[claim()], volumes=[volume(claimRef=held_by(uid=""))]),
    facts(claims=[claim(volumeName="pv")], volumes=[volume(claimRef=held_by(uid=""))]),
    facts(pods=[pod(deletionTimestamp=JUST_NOW)], services=[]),
    facts(pods=[pod(**OVERDUE)], services=[], mounts=mounts()),
    facts(pods=[pod(volumes=[], **OVERDUE)], services=[]),
    facts(pods=[pod(phase="Pending", nodeSelector={"disk": "ssd"}, nodeName="")], services=[]),
    facts(
        claims=[claim(storageClassName=None)],
        volumes=[],
        classes=[storage_class(metadata={"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}})],
    ),
    facts(
        claims=[claim(storageClassName="late")],
        volumes=[],
        classes=[storage_class("late", volumeBindingMode="WaitForFirstConsumer")],
    ),
    facts(claims=[claim(phase="Bound", volumeName="pv", size="2Gi", status={"conditions": [{"type": "Resizing"}]})]),
    facts(claims=[claim(phase="Bound", volumeName="pv", **OVERDUE)]),
    facts(
        claims=[claim(phase="Bound", volumeName="pv", finalizers=["kubernetes.io/pvc-protection"], **OVERDUE)],
        pods=[],
        services=[],
    ),
    facts(volumes=[volume(phase="Bound", claimRef=held_by(), deletionTimestamp=JUST_NOW, finalizers=["x/y"])]),
    facts(claims=[], services=[], pods=[], volumes=[volume(phase="Released", claimRef=held_by())]),
    facts(claims=[], services=[], pods=[], volumes=[volume(phase="Released", policy="Recycle", claimRef=held_by())]),
    facts(pods=[], slices=[], deployments=[workload(replicas=0)]),
    facts(services=[service(deletionTimestamp=JUST_NOW)], slices=[]),
    facts(slices=[endpoints()]),
    facts(manifests=[workload(), workload("ConfigMap"), manifest("networking.k8s.io/v1"), None, manifest("")]),
    # Other things that go wrong are not ours.
    waiting_pod(event("web", "FailedMount", 'MountVolume.SetUp failed for volume "config" : configmap "c" not found')),
    waiting_pod(event("web", "FailedMount", DEADLINE), mounts=mounts()),
    complaining_pod("sh: /etc/shadow: Permission denied"),
    complaining_pod("out of memory"),
    # Nobody may say.
    facts(
        **dynamic(
            provisioners=None,
            claims=[{**claim(storageClassName="managed"), "metadata": metadata("data", "shop", creationTimestamp="")}],
        )
    ),
    facts(claims=[claim()], volumes=None, services=[]),
    facts(pods=[pod(phase="Pending")], claims=None, services=[]),
]


@pytest.mark.parametrize("given", HEALTHY)
def test_a_healthy_cluster_is_not_spoken_of(given: Facts) -> None:
    assert diagnose(given) == []


LISTS = [
    one.name
    for one in fields(Facts)
    if one.name not in ("now", "minor", "asked", "provisioners", "logs", "denied", "groups")
]


def together() -> Facts:
    """All cases in one cluster, in which each name is there once."""

    def renamed(item: Any, number: int) -> Any:
        if not isinstance(item, dict) or "metadata" not in item:
            return item
        return {**item, "metadata": {**item["metadata"], "name": f"{item['metadata']['name']}-{number}"}}

    every: dict[str, Any] = {
        name: [item for _c, _s, _w, given in CASES for item in (getattr(given, name) or ())] for name in LISTS
    }
    numbered: dict[str, Any] = {
        name: [renamed(item, number) for number, item in enumerate(items)] for name, items in every.items()
    }
    return replace(facts(asked=True, provisioners={OURS: "stopped"}), **numbered)


def test_many_faults_at_once_are_all_told() -> None:
    found = diagnose(together())
    assert len(found) > 50
    assert len({(one.key, one.cause) for one in found}) == len(found)
    assert all(len(one.sentence.split()) <= 30 for one in found)


def test_a_target_alone_and_what_it_depends_on() -> None:
    given = facts(
        claims=[
            claim(phase="Lost", volumeName="pv"),
            claim("other", volumeName="gone"),
            claim("else", volumeName="gone", namespace="test"),
        ],
        volumes=[volume(phase="Failed", policy="Recycle", claimRef=held_by())],
        pods=[pod(), pod("user", volumes=[{"persistentVolumeClaim": {"claimName": "other"}}])],
        services=[],
    )

    def names(target: Target | None) -> list[str]:
        return [one.name for one in diagnose(given, target)]

    assert names(None) == ["data", "other", "else", "pv"]
    assert names(Target()) == names(None)
    assert names(Target("shop")) == ["data", "other", "pv"]
    assert names(Target("shop", claim="data")) == ["data", "pv"]
    assert names(Target("shop", pod="user")) == ["other"]
    assert names(Target("test")) == ["else"]
    refused = replace(given, manifests=[manifest("extensions/v1")])
    assert [one.cause for one in diagnose(refused, Target("test", claim="else"))] == [
        "volume-missing",
        "api-version-not-served",
    ]


def test_what_is_asked_about_must_exist() -> None:
    given = facts()
    assert _diagnose.missing(given, Target("shop", claim="data")) == ""
    assert _diagnose.missing(given, Target("test", claim="data")) == (
        'claim: there is no claim "data" in namespace "test"; there is one in shop'
    )
    assert _diagnose.missing(given, Target("shop", pod="db")) == 'pod: there is no pod "db" in namespace "shop"'
    assert _diagnose.missing(given, Target("shop", pod="web")) == ""
    assert _diagnose.missing(Facts(), Target("shop", pod="db")) == ""


def test_places_are_those_of_probable_answers() -> None:
    given = waiting_pod(failed_mount(DENIED))
    assert _diagnose.result(given, Target())["places"] == [{"server": "nfs1", "path": "/srv/data"}]
    certain = waiting_pod(failed_mount(HELPER))
    assert _diagnose.result(certain, Target())["places"] == []
    held = facts(claims=[], pods=[], services=[], volumes=[volume(finalizers=[CSI_FINALIZER], **OVERDUE)])
    assert _diagnose.result(held, Target())["places"] == [{"server": "nfs1", "path": "/srv/data"}]


@pytest.mark.parametrize("key", ["subDir", "subdir"])
def test_the_source_of_a_volume(key: str) -> None:
    attributes = {"Server": "nfs1", "share": "/srv/", key: "a"}
    csi = {"csi": {"driver": "nfs.csi.k8s.io", "volumeAttributes": attributes}}
    source = _diagnose_objects.source_of(csi, "pv")
    assert source is not None
    assert source.what == "nfs1:/srv/a"
    attributes[key] = "${pvc.metadata.name}"
    assert _diagnose_objects.source_of(csi, "pv") is None
    assert _diagnose_objects.source_of({"hostPath": {"path": "/x"}}, "pv") is None
    inline = {"metadata": {}, "spec": {"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/p"}}]}}
    assert [one.what for _name, one in _diagnose_facts.sources_of(inline, Facts())] == ["s:/p"]


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "In", "values": ["2"]}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
        ({"key": "a", "operator": "Gt", "values": ["0"]}, False),
    ],
)
def test_selectors_by_expressions(expression: dict[str, Any], fits: bool) -> None:
    assert _diagnose_objects.selects({"matchExpressions": [expression]}, {"a": "1"}) is fits


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("*", True),
        ("192.0.2.0/24", True),
        ("192.0.2.0/255.255.255.0", True),
        ("192.0.2.21", True),
        ("198.51.100.0/24", False),
        ("2001:db8::/32", False),
        ("node1", True),
        ("*.example.com", None),
        ("@nodes", None),
    ],
)
def test_which_clients_are_known_to_be_the_node(host: str, fits: bool | None) -> None:
    assert _diagnose_mounts._is_client(host, ["192.0.2.21", "node1"]) is fits
    assert _diagnose_mounts._is_client("192.0.2.0/24", ["node1"]) is None


def test_users_on_the_server() -> None:
    squashed = _diagnose_pods._squashed
    assert squashed(0, ["root_squash", "anonuid=99"]) == 99
    assert squashed(0, ["no_root_squash", "anonuid=99"]) == 0
    assert squashed(5, ["root_squash"]) == 5
    assert squashed(5, ["all_squash"]) == 65534
    assert squashed(None, ["root_squash", "anonuid=x"]) is None
    may_write = _diagnose_pods._may_write
    assert may_write(5, set(), {"uid": 5, "gid": 0, "mode": "0300"}) is True
    assert may_write(5, {7}, {"uid": 0, "gid": 7, "mode": "0755"}) is False
    assert may_write(5, set(), {"uid": 0, "gid": 0, "mode": "0777"}) is True
    assert may_write(5, set(), {"uid": 0}) is None


# Properties -----------------------------------------------------------------------------------------------

# Longer than a sentence may be, a number that no clock has, and a time that no clock shows.
ODD: list[Any] = [
    " ".join("abcdefghijklmnopqrstuvwxyz123456"), 10**40, "9999-99-99T99:99:99Z", True, None, -1, 0.5, [], {}, [""],
    [None], "/", "*", {"a b": 1}, {1: 2}, "a\u2003b", "",
]  # fmt: skip


def spots(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a structure."""
    below = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [path, *(spot for key, value in below for spot in spots(value, (*path, key)))]


def odd_facts(random: Random) -> Facts:
    """A case in which some places hold what they never should."""
    given = random.choice(CASES)[3]
    every: dict[str, Any] = {name: copy.deepcopy(getattr(given, name)) for name in LISTS}
    for _time in range(random.randint(1, 4)):
        name = random.choice(LISTS)
        found = [one for one in spots(every[name]) if one]
        if not found:
            every[name] = [random.choice(ODD)]
            continue
        *way, last = random.choice(found)
        place = every[name]
        for key in way:
            place = place[key]
        place[last] = copy.deepcopy(random.choice(ODD))
    return replace(given, **every)


@given(st.randoms(use_true_random=True))
def test_odd_objects_raise_nothing_and_sentences_stay_short(random: Random) -> None:
    given = odd_facts(random)
    found = diagnose(given)
    for one in found:
        assert len(one.sentence.split()) <= 30, one.sentence
        assert one.as_dict()["certainty"] in ("certain", "probable")
    assert diagnose(replace(given)) == found, "the same facts, the same answer"
    _diagnose.places(given, found)
    _diagnose.missing(given, Target("shop", claim="data"))
    assert {one.key for one in diagnose(given, Target("shop"))} <= {one.key for one in found}


@examples(10)
@given(st.randoms(use_true_random=True))
def test_the_order_of_the_lists_does_not_matter(random: Random) -> None:
    cluster = together()
    lists: dict[str, Any] = {
        name: [*getattr(cluster, name)] for name in LISTS if name not in ("events", "exports", "directories", "mounts")
    }
    for one in lists.values():
        random.shuffle(one)

    def told(given: Facts) -> list[tuple[Any, ...]]:
        return [(*one.key, one.cause) for one in diagnose(given)]

    assert told(replace(cluster, **lists)) == told(cluster)


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=63)


@given(
    st.lists(
        st.builds(
            volume,
            names,
            size=st.sampled_from(["1Gi", "2Gi", "500M"]),
        ),
        max_size=4,
    ),
    names,
)
def test_a_claim_that_a_free_volume_fits_is_not_spoken_of(volumes: list[dict[str, Any]], name: str) -> None:
    wanted = claim(name, size="1Gi")
    wish = _diagnose_fit.Wish.of(wanted)
    fits = [one for one in volumes if not _diagnose_fit.failed_criteria(wish, _diagnose_objects.Offer.of(one))]
    found = diagnose(facts(claims=[wanted], volumes=volumes, pods=[], services=[]))
    assert bool(found) is not bool(fits)


def test_findings_are_plain_data() -> None:
    one = Finding("Pod", "n", "p", "cause", "Sentence.", ("seen",), "look")
    assert one.as_dict() == {
        "object": {"kind": "Pod", "namespace": "n", "name": "p"},
        "cause": "cause",
        "sentence": "Sentence.",
        "evidence": ["seen"],
        "certainty": "probable",
        "check": "look",
    }
