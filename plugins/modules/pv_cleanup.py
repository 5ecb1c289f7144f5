#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of PersistentVolumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pv_cleanup
short_description: Remove PersistentVolumes as a plan says, and make them again
version_added: 0.1.0
description:
  - The only module of this collection that removes PersistentVolumes. What is removed is decided by
    M(clusterkit.storage.storage_plan); nothing can be named here that is not in a plan.
  - The directories are moved by M(clusterkit.storage.volume_dirs), in this order. This module with O(state=intended)
    writes what the volumes look like; M(clusterkit.storage.volume_dirs) with C(state=intended) keeps that on the
    server; this module with O(state=absent) removes the volumes; M(clusterkit.storage.volume_dirs) with
    C(state=quarantined) moves the directories of those that are certainly gone, and with C(state=closed) withdraws the
    intents of those that are certainly there. The playbook C(cleanup) does all of it.
  - A volume is removed only if it is as the plan saw it, Released or Failed, of no protected namespace, has no claim
    any more, and shares its directory with nobody. Its policy is set to V(Retain) first and seen in force, so that no
    provisioner deletes what it holds, and no finalizer of another one may be on it. Its uid and resourceVersion are
    the condition of its removal, and it counts as removed when the API says that it is not there.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
attributes:
  check_mode:
    support: full
    details:
      - Every change is sent to the API as a dry run. Waiting is left out. O(objects) is written.
  diff_mode:
    support: full
    details:
      - One entry for each volume that is removed or made.
  idempotent:
    support: partial
    details:
      - A volume that is gone is reported as V(gone), and what is to be done with its directory is told all the same.
options:
  state:
    description:
      - V(intended) changes nothing; it judges the volumes and writes them to O(objects), with claim and class. It also
        takes a plan to reclaim, for the volumes whose content is to go into quarantine.
      - V(absent) removes them, as the C(method) of their step says. V(quarantine) and V(missing) remove the object
        only; with the latter there is no directory, so that what O(objects) holds is all that is left of the volume.
        V(provisioner) sets the policy V(Delete) and waits until its provisioner has removed volume and directory; if
        it does not, the policy is V(Retain) again.
      - V(present) makes volumes again whose directories are back, from a plan for C(undelete).
    type: str
    choices: [intended, absent, present]
    required: true
  plan:
    description:
      - A file that M(clusterkit.storage.storage_plan) wrote, on the machine where the module runs. What became of each
        step is written to a file beside it, whose name ends in C(.STATE.result.jsonl); nothing is written in check
        mode.
    type: path
    required: true
  only:
    description:
      - Names of volumes of the plan that are meant, for example those whose intent was written. An empty list means
        none.
    type: list
    elements: str
  objects:
    description:
      - With O(state=intended), the file for the objects, on the machine where the module runs. It has mode 0600.
    type: path
  protected_namespaces:
    description:
      - Namespaces whose volumes are not removed, besides those with the label C(storage.clusterkit/protected=true).
    type: list
    elements: str
    default: []
  on_error:
    description:
      - V(continue) does all that can be done and fails at the end. V(stop) begins nothing more once one has failed.
    type: str
    choices: [continue, stop]
    default: continue
  wait_timeout:
    description: Seconds to wait for each volume at most, until nobody else holds it, and then until it is gone.
    type: int
    default: 120
  dest:
    description:
      - The file for the result, if it is not to lie beside the plan.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get, list, patch and delete on persistentvolumes, create for O(state=present); list on
    namespaces, and get on the namespace kube-system; get and list on persistentvolumeclaims of all namespaces, create
    for claims that are made again; list on pods of the namespace default; get on storageclasses (storage.k8s.io); list
    on leases (coordination.k8s.io), endpoints, deployments and statefulsets (apps) of all namespaces."
  - Finalizers are never touched.
seealso:
  - module: clusterkit.storage.storage_plan
  - module: clusterkit.storage.volume_dirs
  - module: clusterkit.storage.pv_reclaim
"""

EXAMPLES = r"""
- name: Read what the planned volumes look like
  clusterkit.storage.pv_cleanup:
    state: intended
    plan: /var/tmp/cleanup-plan.json
    objects: /var/tmp/objects.jsonl
  register: ready

- name: Remove those whose intent lies on the server
  clusterkit.storage.pv_cleanup:
    state: absent
    plan: /var/tmp/cleanup-plan.json
    only: [pvc-0e2c, pvc-77aa]
    wait_timeout: 300
  register: removed

- name: Which directories may be moved now
  ansible.builtin.debug:
    var: removed.directories.quarantined
"""

RETURN = r"""
volumes:
  description: Each volume that is not RV(unchanged), sorted by name, also when some of them failed.
  returned: always, once the volumes were read
  type: list
  elements: dict
  contains:
    name: {description: Name., type: str, sample: pvc-0e2c}
    state:
      description:
        - V(changed), V(refused), V(gone), V(stale) (not what the plan saw any more), V(failed) or
          V(not_started).
      type: str
      sample: changed
    object:
      description:
        - "What is certain: V(gone), V(kept), V(made), or V(unknown), where nothing may be done with its directory and
          its intent."
      type: str
      sample: gone
    reason: {description: Why it was not removed., type: str}
    touched: {description: "Whether anything of it was changed, for example its policy.", type: bool}
    before: {description: "C(phase), C(policy) and C(claim) before it was removed.", type: dict}
directories:
  description:
    - What M(clusterkit.storage.volume_dirs) is to do next, by its state and by host, as ids of steps for its C(only).
  returned: always, once the volumes were read
  type: dict
  sample: {quarantined: {nfs1: ["00002"]}, closed: {}}
kept:
  description: With O(state=intended), names of the volumes that O(objects) holds.
  returned: with O(state=intended), once the volumes were read
  type: list
  elements: str
  sample: [pvc-0e2c]
unchanged:
  description: Names of the volumes of which nothing was left to do.
  returned: always, once the volumes were read
  type: list
  elements: str
  sample: [pvc-0e2d]
summary:
  description: How many volumes ended in which state.
  returned: always, once the volumes were read
  type: dict
  sample: {changed: 1, unchanged: 0, refused: 0, gone: 0, stale: 0, failed: 0, not_started: 0}
plan_id:
  description: The id of the plan.
  returned: always, once the volumes were read
  type: str
dest:
  description: The file with all volumes, also those that are RV(unchanged).
  returned: when one was written
  type: str
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _cleanup_run
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = _cleanup_run.ARGUMENTS


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "intended", ["objects"])],
    )
    given = module.params
    dest = given["dest"] or f"{given['plan']}.{given['state']}.result.jsonl"
    module.carry_out("volume", _cleanup_run.clean_up, dest)


if __name__ == "__main__":
    main()
