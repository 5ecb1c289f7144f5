#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of restored volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pv_restore
short_description: Make volumes and claims again after a restore, bound to each other
version_added: 0.1.0
description:
  - Does those parts of a plan of M(clusterkit.storage.storage_plan) for V(restore) that concern the API.
  - Makes what is missing of namespace, class, volume and claim, and reserves a volume that was released for the claim
    of its old name. A volume is made with policy V(Retain), and gets another one only once both are bound to each
    other.
  - One step that fails does not stop the others. The module then fails with the results of all.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
attributes:
  check_mode:
    support: full
    details:
      - Every change is sent to the API as a dry run. Waiting is left out, and so are claims in a namespace that has
        still to be made. Pods that mount a claim are no reason to refuse it, since nobody was stopped.
  diff_mode:
    support: none
    details:
      - The steps say what changes.
  idempotent:
    support: full
options:
  state:
    description:
      - V(expected) changes nothing, and tells of each step whether volume and claim are those that it was planned for,
        and no pod mounts the claim. This comes before the data is restored.
      - V(bound) makes the objects, and waits until volume and claim are bound to each other.
    type: str
    choices: [expected, bound]
    required: true
  steps:
    description: The steps, as in the plan.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: Number of the step in its plan.
        type: str
      item:
        description: What it is about, for messages.
        type: str
      claim:
        description: The claim and its volume.
        type: dict
        required: true
        suboptions:
          namespace:
            description: Namespace of the claim.
            type: str
            default: ""
          name:
            description: Name of the claim; empty for a volume without one.
            type: str
            default: ""
          volume:
            description: Name of the volume.
            type: str
            required: true
      objects:
        description: What is missing, by the keys V(volume), V(claim) and V(storage_class).
        type: dict
        default: {}
      policy:
        description: The reclaim policy that the volume gets at the end.
        type: str
        choices: [Retain, Delete, Recycle]
        default: Retain
      precondition:
        description: What the plan was made for.
        type: dict
        default: {}
        suboptions:
          uid:
            description: Uid of the volume, if there was one.
            type: str
          claim_uid:
            description: Uid of the claim, if there was one.
            type: str
          generation:
            description: The generation that is restored; not looked at here.
            type: str
  wait_timeout:
    description: Seconds to wait at most until all are bound.
    type: int
    default: 120
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get on persistentvolumes and persistentvolumeclaims, and list on pods; for
    O(state=bound) also create and patch on persistentvolumes, create on persistentvolumeclaims, get and create on
    namespaces and storageclasses (storage.k8s.io)."
seealso:
  - module: clusterkit.storage.storage_plan
  - module: clusterkit.storage.volume_restore
"""

EXAMPLES = r"""
- name: Make the objects of a restored volume again
  clusterkit.storage.pv_restore:
    state: bound
    steps: "{{ (lookup('ansible.builtin.file', '/var/tmp/restore-plan.json') | from_json).steps }}"
"""

RETURN = r"""
steps:
  description: What became of each step, also when some of them failed.
  returned: always, except when the API cannot be asked
  type: list
  elements: dict
  contains:
    id: {description: Its number., type: str, sample: "00001"}
    item: {description: What it is about., type: str, sample: shop/data}
    state:
      description:
        - With O(state=expected) V(ready), V(stale), V(refused) (a pod mounts the claim) or V(failed).
        - With O(state=bound) V(bound), V(unchanged) or V(failed).
      type: str
      sample: bound
    reason: {description: Why it was not done., type: str}
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _pv_restore
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "state": {"type": "str", "choices": ["expected", "bound"], "required": True},
    "steps": {"type": "list", "elements": "dict", "required": True, "options": _pv_restore.STEP},
    "wait_timeout": {"type": "int", "default": 120},
}


def main() -> None:
    module = ApiModule(ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        api = module.client()
        if given["state"] == "expected":
            steps = _pv_restore.check(api, given["steps"])
        else:
            steps = _pv_restore.bind(api, given["steps"], given["wait_timeout"])
    except ApiError as error:
        module.fail_json(msg=str(error))
    result = {"changed": any(one["state"] == "bound" for one in steps), "steps": steps}
    bad = [f"{one['item']} ({one['state']}): {one['reason']}" for one in steps if one["reason"]]
    if bad:
        module.fail_json(msg="; ".join(bad), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
