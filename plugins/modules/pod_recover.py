#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan to recover, in the API."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_recover
short_description: Let pods be made again, and see that deleted ones go
version_added: 0.1.0
description:
  - Does those steps of a plan of M(clusterkit.storage.storage_plan) for V(recover) that concern pods, and waits until
    kubelet has removed pods.
  - A pod is deleted only if it is the one that the plan was made for, by its uid. Otherwise the step alone is V(stale)
    or V(gone).
  - A pod is deleted by force only if its node, by O(left), confirms that no mount and no process of it is left.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.steps
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
attributes:
  check_mode:
    support: full
    details:
      - Every deletion is sent to the API as a dry run. Waiting is left out.
options:
  steps:
    description: The steps. At least one of O(steps) and O(pods) is needed.
    type: list
    elements: dict
    suboptions:
      id:
        description: Number of the step in its plan.
        type: str
      action:
        description:
          - V(restart) deletes the pod, so that its owner makes it again. V(force_delete) removes the object at once.
        type: str
        choices: [restart, force_delete]
        required: true
      namespace:
        description: Namespace of the pod.
        type: str
        required: true
      name:
        description: Name of the pod.
        type: str
        required: true
      precondition:
        description: Which pod it must be.
        type: dict
        required: true
        suboptions:
          uid:
            description: Its uid.
            type: str
            required: true
          resource_version:
            description: Its resourceVersion.
            type: str
  pods:
    description: The pods to wait for, before any step is done.
    type: list
    elements: dict
    suboptions:
      namespace:
        description: Namespace.
        type: str
        required: true
      name:
        description: Name.
        type: str
        required: true
      uid:
        description: Its uid.
        type: str
        required: true
      expected:
        description: Whether it is waited for. Otherwise it is only told whether it is gone.
        type: bool
        default: true
  left:
    description:
      - What is left of pods on their nodes, as RV(clusterkit.storage.nfs_recover#module:pods) tells. One that is not
        named here is not deleted by force.
    type: list
    elements: dict
    default: []
    suboptions:
      uid:
        description: Uid of the pod.
        type: str
        required: true
      mounts:
        description: Its mounts.
        type: list
        elements: str
        required: true
      processes:
        description: Its processes.
        type: list
        elements: str
        required: true
  wait_timeout:
    description: Seconds to wait at most.
    type: int
    default: 60
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get and delete on pods."
seealso:
  - module: clusterkit.storage.storage_plan
  - module: clusterkit.storage.nfs_recover
"""

EXAMPLES = r"""
- name: Wait until kubelet has removed the pods whose mounts are off
  clusterkit.storage.pod_recover:
    pods: "{{ plan | clusterkit.storage.recovery_pods }}"
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
    pod: {description: Namespace and name of the pod., type: str, sample: shop/web-0}
    action: {description: What was to be done., type: str, sample: restart}
    state:
      description: "V(done), V(gone), V(stale), V(refused) (something of it is left on its node) or V(failed)."
      type: str
      sample: done
    reason: {description: Why it was not done., type: str}
pods:
  description: Each pod of O(pods).
  returned: success
  type: list
  elements: dict
  contains:
    pod: {description: Namespace and name., type: str, sample: shop/web-0}
    uid: {description: Its uid., type: str}
    removed: {description: Whether it is gone., type: bool}
    seconds: {description: "How long that took from the beginning of the wait, or null.", type: float}
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _pod_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "steps": {"type": "list", "elements": "dict", "options": _pod_set.STEP},
    "pods": {"type": "list", "elements": "dict", "options": _pod_set.POD},
    "left": {"type": "list", "elements": "dict", "default": [], "options": _pod_set.LEFT},
    "wait_timeout": {"type": "int", "default": 60},
}


def main() -> None:
    module = ApiModule(ARGUMENTS, supports_check_mode=True, required_one_of=[("steps", "pods")])
    given = module.params
    try:
        api = module.client()
        seconds = 0 if module.check_mode else given["wait_timeout"]
        pods = _pod_set.wait_until_gone(api, given["pods"], seconds) if given["pods"] else []
        steps = _pod_set.carry_out(api, given["steps"] or [], given["left"])
    except ApiError as error:
        module.fail_json(msg=str(error))
    result = {"changed": any(one["state"] == "done" for one in steps), "steps": steps, "pods": pods}
    bad = [f"{one['pod']} ({one['state']}): {one['reason']}" for one in steps if one["state"] in ("failed", "stale")]
    if bad:
        module.fail_json(msg="; ".join(bad), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
