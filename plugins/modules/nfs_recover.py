#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan to recover, on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_recover
short_description: Unmount for pods that cannot end, and mount anew what is stale
version_added: 0.1.0
author:
  - The clusterkit.storage authors (@clusterkit)
description:
  - Does those steps of a plan of M(clusterkit.storage.storage_plan) for V(recover) that concern the mounts of this
    host.
  - A step is done only if the mount is the one that the plan was made for. Otherwise it alone is V(stale) or V(gone),
    and nothing is touched for it.
  - With V(abort) all requests of the superblock end with EIO, those of every mount with the same C(major:minor). It is
    not done when another mount, or the container of a pod that the plan does not name, has come to the superblock.
  - Touches no path on a server, and waits for none longer than it is told to.
options:
  steps:
    description:
      - The steps.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Number of the step in its plan.
        type: str
      item:
        description: Name of the step.
        type: str
      action:
        description:
          - V(lazy) takes the mount out of the tree (C(umount -l)); what is open stays open, nothing is lost.
          - V(abort) ends all requests of the superblock with EIO (C(umount -f)) until the processes of
            O(steps[].pods) are gone, then unmounts. What was not written yet is lost.
          - V(remount) tries the new mount in a namespace of its own, unmounts the stale one, and mounts again, with the
            options in C(/etc/fstab) or those that it had.
        type: str
        choices: [lazy, abort, remount]
        required: true
      path:
        description: The mount point, as in C(/proc/self/mountinfo).
        type: str
        required: true
      source:
        description: The source, as in C(/proc/self/mountinfo).
        type: str
        required: true
      options:
        description: For V(remount), the options that it had.
        type: list
        elements: str
        default: []
      trigger:
        description:
          - For V(remount), whether an automount trigger below it mounts it again, so that it is only unmounted.
        type: bool
        default: false
      pods:
        description: For V(abort), the uids of the pods that are to end.
        type: list
        elements: str
        default: []
      also:
        description: For V(abort), the uids of the pods that share the superblock, and that it may hit as well.
        type: list
        elements: str
        default: []
      precondition:
        description: Which mount it must be.
        type: dict
        required: true
        suboptions:
          mount_id:
            description: Its id.
            type: int
            required: true
          major_minor:
            description: Its superblock.
            type: str
            required: true
          superblock:
            description: For V(abort), the ids of all mounts that may share the superblock.
            type: list
            elements: int
  pods:
    description:
      - Uids of pods. RV(pods) tells what is left of them afterwards.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds that one command may take.
    type: float
    default: 10
  patience:
    description:
      - Seconds for the processes of aborted pods to end. Their requests are aborted again each second until then.
    type: float
    default: 15
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.steps
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
seealso:
  - module: clusterkit.storage.storage_plan
  - module: clusterkit.storage.pod_recover
  - module: clusterkit.storage.nfs_mounts
"""

EXAMPLES = r"""
- name: Do what the plan says for this host
  clusterkit.storage.nfs_recover:
    steps: "{{ plan | clusterkit.storage.recovery_steps('nfs_recover', inventory_hostname) }}"
    pods: "{{ plan.pods | selectattr('host', '==', inventory_hostname) | map(attribute='uid') }}"
  vars:
    plan: "{{ lookup('ansible.builtin.file', '/var/tmp/recover-plan.json') | from_json }}"
"""

RETURN = r"""
steps:
  description: What became of each step, also when some of them failed.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Its number., type: str, sample: "00001"}
    item: {description: Its name., type: str, sample: "node1:/srv/data"}
    action: {description: What was to be done., type: str, sample: lazy}
    path: {description: The mount point., type: str, sample: /srv/data}
    source: {description: The source., type: str, sample: "192.0.2.10:/srv/nfs/data"}
    state:
      description:
        - V(done); V(gone), it is not mounted any more; V(stale), the mount is another one than the plan says, or shared
          with more than it says; V(failed); in check mode V(planned).
      type: str
      sample: done
    reason: {description: Why it was not done., type: str}
pods:
  description: What is left of each pod on this host.
  returned: success
  type: list
  elements: dict
  contains:
    uid: {description: Its uid., type: str}
    mounts: {description: NFS mounts of it., type: list, elements: str}
    processes: {description: 'Processes of it, with their commands.', type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_host import STEP, Machine, Runner

ARGUMENTS = {
    "steps": {"type": "list", "elements": "dict", "default": [], "options": STEP},
    "pods": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 10},
    "patience": {"type": "float", "default": 15},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    runner = Runner(Machine(), timeout=given["timeout"], patience=given["patience"], check_mode=module.check_mode)
    steps = runner.apply(given["steps"])
    bad = [f"{one.path} ({one.state}): {one.reason}" for one in steps if one.state in ("failed", "stale")]
    result = {
        "changed": any(one.state in ("done", "planned") for one in steps),
        "steps": [one.to_dict() for one in steps],
        "pods": runner.left_of(given["pods"]),
    }
    if bad:
        module.fail_json(msg="; ".join(bad), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
