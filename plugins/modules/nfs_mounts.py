#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mounts
short_description: Manage the NFS mounts of a host, live and in fstab
version_added: 0.1.0
author:
  - The clusterkit.storage authors (@clusterkit)
description:
  - Takes the whole list of a host's NFS mounts and brings the live mounts and C(/etc/fstab) to it.
  - The live table (C(/proc/self/mountinfo)) decides, not fstab. Another source, other options, or something that was
    mounted over the path is noticed. Options are compared as the kernel means them, so V(vers=4) is satisfied by
    a live 4.2, and a negotiated C(rsize) by a smaller one. Options that are not given count with the kernel's
    default or with what nfsmount.conf says.
  - What a remount can change (such as V(ro)) is remounted. For anything else the new mount is tried first, in a
    namespace of its own; only if it works the old one is unmounted, and only if it is not busy.
  - Only NFS is ever unmounted. Something else at the path, or over it, makes the item fail.
  - Mounts are made side by side. No path on a server that does not answer is touched, every command has a deadline.
  - Everything that is wrong with the input is reported at once, before anything is changed. When some items fail,
    the others are done all the same, and the result tells about each.
options:
  mounts:
    description:
      - The mounts. Paths that are not named are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The mount point, an absolute path.
        type: str
        required: true
      src:
        description:
          - The export, as C(server:/exported/path). An IPv6 address needs brackets.
          - Needed for O(mounts[].state=mounted) and O(mounts[].state=present).
        type: str
      options:
        description:
          - Options of nfs(5) and mount(8), one by one or with commas. An unknown one is refused.
          - Those that concern the boot only (such as V(_netdev), V(nofail), V(bg), V(x-systemd.automount)) are written
            to fstab and not used for the mount that is made now.
          - With V(x-systemd.automount) an armed trigger counts as mounted. Starting and stopping the trigger is
            left to systemd.
        type: list
        elements: str
        default: []
      state:
        description:
          - V(mounted), mounted now and, with O(mounts[].boot), in fstab.
          - V(present), in fstab; the live mount is left alone.
          - V(unmounted), not mounted now; fstab is left alone.
          - V(absent), neither mounted nor in fstab. Its line leaves fstab only when the mount is gone.
        type: str
        choices: [mounted, present, unmounted, absent]
        default: mounted
      boot:
        description:
          - Whether fstab has a line of it.
        type: bool
        default: true
      owner:
        description:
          - Owner, name or number, of the mount point if it has to be made. An existing one is left as it is.
        type: str
      group:
        description:
          - Group, name or number, of the mount point if it has to be made.
        type: str
      mode:
        description:
          - Mode of the mount point if it has to be made, octal and quoted. Without it, V(0755).
        type: raw
  mount_defaults:
    description:
      - Options that all NFS mounts of the host get, kept in C(/etc/nfsmount.conf.d/clusterkit.conf).
        See nfsmount.conf(5); nfs-utils 2.5.3 or newer reads that folder.
      - An empty list removes the file. If not given, the file is left alone.
      - C(mount.nfs) appends these to the options of a mount, and the last one wins. V(soft) here overrules even
        mounts that ask for V(hard), those of Kubernetes volumes included; the module warns about it.
    type: list
    elements: str
  timeout:
    description:
      - Seconds that a command may wait for a server. A server that let one wait that long is not asked again in
        the same call.
    type: float
    default: 60
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - Works before the NFS client is installed, too.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: clusterkit.storage.nfs_probe
  - module: ansible.posix.mount
"""

EXAMPLES = r"""
- name: Two mounts, and one that goes
  clusterkit.storage.nfs_mounts:
    mounts:
      - src: nfs1.example.com:/srv/nfs/data
        path: /srv/data
        options: [rw, hard, nfsvers=4.1]
      - src: nfs1.example.com:/srv/nfs/logs
        path: /var/log/collected
        options: rw,hard,_netdev,nofail
        mode: "0750"
      - path: /old
        state: absent

- name: Only for now, not after the next boot
  clusterkit.storage.nfs_mounts:
    mounts:
      - src: "[2001:db8::10]:/srv/nfs/data"
        path: /mnt/data
        boot: false
"""

RETURN = r"""
mounts:
  description: What became of each item, in the order of the input, also when some of them failed.
  returned: when the input was right
  type: list
  elements: dict
  contains:
    path:
      description: The mount point.
      type: str
    src:
      description: The wanted export.
      type: str
    state:
      description: The wanted state.
      type: str
    changed:
      description: Whether something was (in check mode, would be) done for it.
      type: bool
    failed:
      description: Whether it is not as wanted.
      type: bool
    msg:
      description: Why it failed.
      type: str
    actions:
      description: What was done, or would be done in check mode.
      type: list
      elements: str
      sample: [make the mount point, "mount nfs1.example.com:/srv/nfs/data", add its line in /etc/fstab]
    notes:
      description: What is worth knowing, such as options that do nothing.
      type: list
      elements: str
    live:
      description: The NFS mount that is visible at the path afterwards, V(null) without one.
      type: dict
      contains:
        source:
          description: The export, as the kernel names it.
          type: str
        options:
          description: Options of the mount in force.
          type: list
          elements: str
        super_options:
          description: Options of the superblock in force, which it may share with other mounts.
          type: list
          elements: str
mount_defaults_changed:
  description: Whether the drop-in of nfsmount.conf was changed.
  returned: when the input was right
  type: bool
problems:
  description: Everything that is wrong with the input. Nothing was changed.
  returned: when the input is wrong
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options, _nfs_mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import (
    Machine,
    Runner,
    problems_of_host,
)

ARGUMENTS = {
    "mounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "src": {"type": "str"},
            "options": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": list(_nfs_mounts.STATES), "default": "mounted"},
            "boot": {"type": "bool", "default": True},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw"},
        },
    },
    "mount_defaults": {"type": "list", "elements": "str"},
    "timeout": {"type": "float", "default": 60},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    machine = Machine()
    items, problems = _nfs_mounts.read_input(module.params["mounts"])
    defaults = module.params["mount_defaults"]
    if defaults is not None:
        defaults = _mount_options.parse(defaults)
        problems += [f"mount_defaults: {problem}" for problem in _mount_options.problems(defaults)]
    if not problems and not module.check_mode:
        problems = problems_of_host(machine, items)
    if module.params["timeout"] <= 0:
        problems.append("timeout: must be more than 0 seconds")
    if problems:
        module.fail_json(msg="nothing was changed: " + "; ".join(problems), problems=problems)

    outcome = Runner(machine, timeout=module.params["timeout"], check_mode=module.check_mode).apply(items, defaults)
    for warning in outcome.warnings:
        module.warn(warning)
    result = {
        "changed": outcome.changed,
        "mounts": [each.to_dict() for each in outcome.results],
        "mount_defaults_changed": outcome.mount_defaults_changed,
        "diff": outcome.diff,
    }
    if outcome.failures:
        module.fail_json(msg="; ".join(outcome.failures), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
