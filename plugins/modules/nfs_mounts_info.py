#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mounts_info
short_description: List the NFS mounts of a host with their health, dead servers included
version_added: 0.1.0
author:
  - The clusterkit.storage authors (@clusterkit)
description:
  - Lists every NFS mount in the mount namespace of the host, as the kernel shows it (C(/proc/self/mountinfo)), with
    its health and with the pod that kubelet has mounted it for.
  - Returns within O(timeout) plus one second, however many mounts and servers are dead. Each mount is tried by a child
    process of its own, and the servers are asked beside them, so that a mount that hangs is told apart from a server
    that is away.
  - A child that waits for a dead server may not be killable. As long as it lives, later runs start none for the same
    mount.
  - Trying a mount keeps systemd from unmounting it as idle for another idle time-out.
options:
  timeout:
    description:
      - Seconds after which a mount or a server counts as not answering.
    type: float
    default: 5
  kubelet_root:
    description:
      - The root directory of kubelet (its option C(--root-dir)), below which it mounts the volumes of pods.
    type: path
    default: /var/lib/kubelet
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
  - clusterkit.storage.attributes.info
seealso:
  - module: clusterkit.storage.nfs_mounts
  - module: clusterkit.storage.nfs_probe
"""

EXAMPLES = r"""
- name: Look at the NFS mounts
  clusterkit.storage.nfs_mounts_info:
  register: nfs

- name: Name the mounts that do not answer
  ansible.builtin.debug:
    msg: "{{ item.path }}: {{ item.health }}: {{ item.detail }}"
  loop: "{{ nfs.mounts | rejectattr('health', 'eq', 'ok') }}"
  loop_control:
    label: "{{ item.path }}"
"""

RETURN = r"""
mounts:
  description: The NFS mounts, bind mounts of them included, in the order of the kernel's table.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The mount point.
      type: str
    source:
      description: The export, as the kernel names it.
      type: str
      sample: "nfs1.example.com:/srv/nfs/data"
    server:
      description: Name or address of the server in RV(mounts[].source).
      type: str
    export:
      description: Path on the server in RV(mounts[].source).
      type: str
    address:
      description: The server's address that the kernel uses; see RV(servers).
      type: str
    version:
      description: NFS version in force.
      type: str
      sample: "4.2"
    fstype:
      description: V(nfs) (version 3) or V(nfs4).
      type: str
    mount_id:
      description: Number of the mount, unique on the host as long as the mount exists.
      type: int
    parent_id:
      description: Number of the mount that it sits on.
      type: int
    major_minor:
      description: Number of the superblock. Mounts with the same one share it, and C(umount -f) hits all of them.
      type: str
      sample: "0:52"
    options:
      description: Options of the mount in force.
      type: list
      elements: str
    super_options:
      description: Options of the superblock in force.
      type: list
      elements: str
    shares_superblock_with:
      description: The other paths where the same superblock is mounted.
      type: list
      elements: str
    stacked:
      description: Whether another mount covers it, so that no path leads to it.
      type: bool
    pod:
      description: The pod that kubelet has made the mount for, V(null) if it is none of kubelet's.
      type: dict
      contains:
        uid:
          description: The pod's uid.
          type: str
        volume:
          description: Name of the volume, for persistent volumes that of the PersistentVolume.
          type: str
        kind:
          description: V(nfs) (in-tree volume), V(csi), or V(subpath), a part of a volume that one container sees.
          type: str
    health:
      description:
        - V(ok), it answers; also when the answer is an error such as a lack of permission, see RV(mounts[].detail).
        - V(stale), the server knows the directory no longer (ESTALE).
        - V(unreachable), neither the mount nor its server answers.
        - V(hung), the mount does not answer though its server does.
        - A covered mount cannot be tried, it is V(ok) or V(unreachable) as its server is. So is a mount whose check did
          not begin in time, as on a very busy host; RV(mounts[].detail) says so.
      type: str
    latency:
      description: Seconds that the answer took, V(null) if there was none.
      type: float
    detail:
      description: What was seen, empty if all is well.
      type: str
servers:
  description: The servers of these mounts, each asked once, with the NULL call of NFS over TCP.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The server's address.
      type: str
    port:
      description: The port.
      type: int
    answers:
      description: Whether its NFS server replied.
      type: bool
    latency:
      description: Seconds that the reply took, V(null) if there was none.
      type: float
    detail:
      description: Why there was no reply.
      type: str
automounts:
  description: The automount triggers (autofs) of the host, of systemd or of another automounter.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where the trigger is.
      type: str
    source:
      description: Who keeps it, V(systemd-1) is systemd.
      type: str
    mount_id:
      description: Number of the trigger in the mount table.
      type: int
    parent_id:
      description: Number of the mount that it sits on.
      type: int
    kind:
      description: V(direct), V(indirect) or V(offset).
      type: str
    idle_timeout:
      description: Seconds without use after which the mount goes, V(0) for never.
      type: int
    mounted:
      description: The NFS exports that it has mounted now.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts_info

ARGUMENTS = {
    "timeout": {"type": "float", "default": 5},
    "kubelet_root": {"type": "path", "default": "/var/lib/kubelet"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    timeout, kubelet_root = module.params["timeout"], module.params["kubelet_root"]
    if timeout <= 0:
        module.fail_json(msg="timeout: must be more than 0 seconds")
    if not kubelet_root.startswith("/"):
        module.fail_json(msg=f'kubelet_root: "{kubelet_root}" is not an absolute path')
    try:
        result = _mounts_info.look(timeout, kubelet_root)
    except OSError as error:
        module.fail_json(msg=f"the mounts cannot be looked at: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
