# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a bare machine a part of the lab: network, export disk, and on nodes kubelet and containerd."""

from __future__ import annotations

import json

import yaml

from lab.containers import PAUSE
from lab.control_plane import ControlPlane
from lab.machine import Guest
from lab.settings import POD_NETWORK, Options, machines

BIN = "/opt/lab/bin"

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "cgroupDriver": "systemd",
    # No eviction, for which an idle kubelet would read the control groups of everything every 10 s.
    "evictionHard": {
        "memory.available": "0%",
        **{f"{disk}fs.{of}": "0%" for disk in ("node", "image") for of in ("available", "inodesFree")},
    },
    "localStorageCapacityIsolation": False,
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "failSwapOn": False,
    "imageGCHighThresholdPercent": 100,
}

CONTAINERD = f"""version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
"""


def _unit(command: str, after: str = "", extra: str = "") -> str:
    return (
        f"[Unit]\nAfter=network.target {after}\nRequiresMountsFor=/opt/lab\n"
        f"[Service]\nExecStart={command}\nRestart=always\nRestartSec=2\nKillMode=process\nDelegate=yes\n{extra}"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def _cni(pod_network: str) -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": pod_network}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge, portmap]})


def configure_base(guest: Guest, options: Options) -> None:
    """Host name and address on the machines' own segment, ways to the pods of other nodes, kept over reboots; clock."""
    machine = guest.machine
    network = f"[Match]\nName=eth1\n[Network]\nAddress={machine.address}/24\nLinkLocalAddressing=no\n"
    # What is sent to a pod must not leave the lab by the default route.
    network += f"[Route]\nDestination={POD_NETWORK}\nType=unreachable\n"
    for other in machines(options):
        if other.role == "node" and other != machine:
            network += f"[Route]\nDestination={other.pod_network}\nGateway={other.address}\n"
    guest.put(
        {"/etc/systemd/network/20-lab.network": network, "/etc/hostname": f"{machine.name}\n"},
        f"networkctl reload; until ip -4 addr show eth1 | grep -q {machine.address}; do sleep 0.2; done",
    )
    guest.set_clock()


def configure_server(guest: Guest, options: Options) -> None:
    """The second disk, mounted at /nfs with project quota switched on; no NFS package."""
    if options.export_disk == "ext4":
        make, kind = "mkfs.ext4 -q -O quota,project -E quotatype=prjquota", "ext4"
    else:
        make, kind = "mkfs.xfs -q", "xfs"
    guest.ssh(
        f"set -e; blkid /dev/vdb >/dev/null || {make} /dev/vdb; mkdir -p /nfs; "
        f"grep -q ' /nfs ' /etc/fstab || echo '/dev/vdb /nfs {kind} defaults,prjquota,nofail 0 0' >> /etc/fstab; "
        "systemctl daemon-reload; mountpoint -q /nfs || mount /nfs"
    )


def configure_node(guest: Guest, control_plane: ControlPlane) -> None:
    """Start containerd, kubelet and kube-proxy; the node registers itself a few seconds later."""
    name = guest.machine.name
    # With an external cloud provider the node's address is ours to set: the loopback address that
    # leads to the guest's kubelet, so that the API server reaches it (kubectl logs, exec).
    kubelet = (
        f"{BIN}/kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.kubeconfig "
        f"--hostname-override={name} --cloud-provider=external --housekeeping-interval=600s"
    )
    proxy = (
        f"{BIN}/kube-proxy --kubeconfig=/etc/kubernetes/proxy.kubeconfig --hostname-override={name} "
        f"--cluster-cidr={POD_NETWORK} --proxy-mode=iptables --conntrack-max-per-core=0"
    )
    units = "/etc/systemd/system"
    path = f"Environment=PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin\n"
    files = {
        "/etc/kubernetes/kubelet.kubeconfig": control_plane.kubeconfig_of(name),
        "/etc/kubernetes/proxy.kubeconfig": control_plane.kubeconfig_of("kube-proxy"),
        "/etc/kubernetes/pki/ca.crt": control_plane.ca,
        "/etc/kubernetes/kubelet.yaml": yaml.safe_dump(KUBELET),
        "/etc/cni/net.d/10-lab.conflist": _cni(guest.machine.pod_network),
        "/etc/containerd/config.toml": CONTAINERD,
        "/etc/modules-load.d/lab.conf": "br_netfilter\noverlay\n",
        "/etc/sysctl.d/lab.conf": "net.ipv4.ip_forward=1\n",
        f"{units}/containerd.service": _unit(f"{BIN}/containerd", extra=path),
        f"{units}/kubelet.service": _unit(kubelet, "containerd.service"),
        f"{units}/kube-proxy.service": _unit(proxy),
    }
    script = """
mkdir -p /opt/lab
grep -q /opt/lab /etc/fstab || echo 'LABEL=payload /opt/lab ext4 ro,nofail 0 0' >> /etc/fstab
modprobe -a br_netfilter overlay
sysctl -q -p /etc/sysctl.d/lab.conf
systemctl daemon-reload
mountpoint -q /opt/lab || mount /opt/lab
systemctl start containerd
until /opt/lab/bin/ctr version >/dev/null 2>&1; do sleep 0.5; done
for image in /opt/lab/images/*.tar; do
  /opt/lab/bin/ctr -n k8s.io images import --local "$image" >/dev/null
done
systemctl enable -q containerd kubelet kube-proxy
systemctl start kubelet kube-proxy
"""
    guest.put(files, script)
