#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reclaim policy and release of many PersistentVolumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pv_reclaim
short_description: Set the reclaim policy of PersistentVolumes, and release them for a new claim
version_added: 0.1.0
description:
  - Changes policy, claim, labels and annotations of many volumes with one request each, several at a time.
  - Reads first and changes only what differs. Each change carries the version that was read, so that it fails when
    somebody else was faster; the volume is then read and judged again.
  - It never destroys data. V(Delete) and V(Recycle) are set only on volumes that are Bound or Available, and only with
    O(allow_future_deletion); on Released and Failed ones they would destroy what is there at once. Removing volumes
    is not what this module does.
  - A volume is never released while it is Bound or being deleted, when its claim exists again under another uid, when
    its claim was in a protected namespace, and while the controller or a provisioner may be emptying it.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.attributes.dry_run
  - clusterkit.storage.api
  - clusterkit.storage.api.changes
  - clusterkit.storage.api.selection
attributes:
  diff_mode:
    support: full
    details:
      - One entry for each volume that changes.
  idempotent:
    support: full
options:
  volumes:
    description:
      - Names of the volumes. All must come to what is asked for, or the module fails after it has done the others.
      - Exactly one of O(volumes), O(selection) and O(plan) is needed. With O(selection), volumes that are refused are
        reported and do not fail the module. An empty list or selection is an error and never means all.
    type: list
    elements: str
  policy:
    description:
      - The reclaim policy that the volumes should have.
      - V(Previous) puts back the one that O(keep_previous) has kept, on volumes that are Bound or Available; others
        are left alone. It needs O(allow_future_deletion).
    type: str
    choices: [Retain, Delete, Recycle, Previous]
  keep_previous:
    description:
      - With O(policy=Retain), keep the policy that a volume had in the annotation
        C(storage.clusterkit/previous-policy), for a time in which its provisioner or class is replaced.
      - Excludes O(release).
    type: bool
    default: false
  release:
    description:
      - V(open) drops the claim of a Released or Failed volume. Any claim may take it then, with the old content in it.
        Also opens a volume that is reserved.
      - V(reserved) keeps namespace and name of the claim. Only a claim of that name may take it, and finds its old
        content again.
    type: str
    choices: [open, reserved]
  labels:
    description: Labels to set; a null value removes a label.
    type: dict
    default: {}
  annotations:
    description:
      - Annotations to set, for example who asked for it and why; a null value removes one. Keys of Kubernetes itself
        are refused.
    type: dict
    default: {}
  time_annotation:
    description:
      - Key of an annotation that gets the time, together with another change and never alone.
    type: str
  allow_future_deletion:
    description:
      - Whether a volume may get, or keep when it is released, a policy by which its data goes with its next claim.
    type: bool
    default: false
  protected_namespaces:
    description:
      - Namespaces whose volumes are not released and do not get V(Delete) or V(Recycle), besides those with the label
        C(storage.clusterkit/protected=true).
    type: list
    elements: str
    default: []
  emptied:
    description:
      - With O(plan), names of the volumes whose content M(clusterkit.storage.volume_dirs) has put into quarantine. If
        the plan wants that of a volume that is not named here, the volume is refused.
    type: list
    elements: str
    default: []
  wait:
    description: Whether to wait until the released volumes are O(wait_phase).
    type: bool
    default: false
  wait_phase:
    description:
      - V(Available), where Bound counts too, or V(Bound) to the claim that takes it.
    type: str
    choices: [Available, Bound]
    default: Available
  dest:
    description:
      - A file that gets RV(volumes) as lines of JSON; the result then holds those that are not V(unchanged) only.
      - With O(plan) the default is the name of the plan with C(.result.jsonl) behind it; nothing is written in check
        mode.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get, list and patch on persistentvolumes; with O(release), V(Delete) or V(Recycle)
    also list on namespaces, and get and list on persistentvolumeclaims of all namespaces; with O(release) list on pods
    of the namespace default; for Released volumes with policy Delete list on leases (coordination.k8s.io), endpoints,
    deployments and statefulsets (apps) of all namespaces; with O(wait) watch on persistentvolumes; with O(plan) get on
    the namespace kube-system."
  - Finalizers are never touched.
  - A provisioner that stopped while it was deleting a directory may go on when it is started again, if the volume still
    has the policy Delete by then. Set V(Retain) before anything else.
seealso:
  - module: clusterkit.storage.pv_info
  - module: clusterkit.storage.storage_plan
  - name: Reclaiming of PersistentVolumes
    description: What the policies mean.
    link: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming
"""

EXAMPLES = r"""
- name: Keep the data of all volumes of a class, whatever happens to the claims
  clusterkit.storage.pv_reclaim:
    selection:
      storage_classes: [managed-nfs-storage]
    policy: Retain

- name: Give the volumes of a namespace back to claims of the same names
  clusterkit.storage.pv_reclaim:
    selection:
      phases: [Released]
      claim_namespaces: [shop]
    release: reserved
    annotations:
      example.com/released-by: "{{ ansible_user_id }}"
      example.com/why: cluster was restored
    time_annotation: example.com/released-at
    max_changes: 10%
    wait: true

- name: Let anybody use two volumes again
  clusterkit.storage.pv_reclaim:
    volumes: [nfs-spv001, nfs-spv002]
    policy: Retain
    release: open

- name: Keep the data of a provisioner's volumes while it is replaced
  clusterkit.storage.pv_reclaim:
    selection:
      provisioners: [fuseim.pri/ifs]
      policies: [Delete]
    policy: Retain
    keep_previous: true

- name: Put back the policies that they had
  clusterkit.storage.pv_reclaim:
    selection:
      provisioners: [fuseim.pri/ifs]
    policy: Previous
    allow_future_deletion: true

- name: Do exactly what was approved
  clusterkit.storage.pv_reclaim:
    plan: /var/tmp/reclaim-plan.json
"""

RETURN = r"""
volumes:
  description: Each volume that is not RV(unchanged), sorted by name, also when some of them failed.
  returned: always, once the volumes were read
  type: list
  elements: dict
  contains:
    name: {description: Name., type: str, sample: nfs-spv001}
    state:
      description:
        - V(changed), V(refused), V(gone), V(stale) (not what the plan saw any more), V(failed) or
          V(not_started).
      type: str
      sample: changed
    reason: {description: Why it was not changed., type: str}
    note:
      description: What follows for the content.
      type: str
      sample: any claim may take it now; the old content will be visible to the next one
    uid: {description: Uid., type: str}
    phase: {description: Phase when it was last seen., type: str, sample: Available}
    policy: {description: Policy., type: str, sample: Retain}
    claim: {description: Namespace and name of its claim., type: str, sample: shop/data}
    before: {description: "C(phase), C(policy) and C(claim) before the change.", type: dict}
unchanged:
  description: Names of the volumes that are as wanted.
  returned: always, once the volumes were read
  type: list
  elements: str
  sample: [nfs-spv002]
summary:
  description: How many volumes ended in which state.
  returned: always, once the volumes were read
  type: dict
  sample: {changed: 2, unchanged: 5, refused: 1, gone: 0, stale: 0, failed: 0, not_started: 0}
plan_id:
  description: The id of the plan.
  returned: with O(plan)
  type: str
dest:
  description: The file with all volumes, also those that are RV(unchanged).
  returned: when one was written
  type: str
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _changes, _reclaim, _reclaim_run, _selection
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "selection": {"type": "dict", "options": _selection.ARGUMENTS},
    "volumes": {"type": "list", "elements": "str"},
    **_reclaim.ARGUMENTS,
    **_changes.ARGUMENTS,
    "emptied": {"type": "list", "elements": "str", "default": []},
    "wait": {"type": "bool", "default": False},
    "wait_phase": {"type": "str", "choices": ["Available", "Bound"], "default": "Available"},
    "dest": {"type": "path"},
}


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[
            ("selection", "volumes", "plan"),
            *(("plan", name) for name in ("policy", "release", "time_annotation")),
        ],
        required_one_of=[("selection", "volumes", "plan")],
    )
    module.carry_out(
        "volume", _reclaim_run.reclaim, module.params["dest"] or _changes.result_file(module.params["plan"])
    )


if __name__ == "__main__":
    main()
