#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""More space for claims."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pvc_expand
short_description: Let claims and their volumes grow
version_added: 0.1.0
description:
  - Gives claims a new size, several at a time, so that volume and claim agree.
  - For volumes with C(spec.nfs), whether made by hand or by a provisioner, the capacity of the volume and the
    C(status.capacity) of the claim become the size, and the request of the claim too where its StorageClass allows
    expansion; where none does it stays, and the result says so. Each of these is one request under the version that
    was read; when a run is stopped in between, nothing contradicts, and the next run does the rest.
  - For volumes with C(spec.csi) the request of the claim becomes the size, and the resizer of the driver is waited for.
  - It never shrinks anything and never changes a reclaim policy.
  - An NFS server does not know of these sizes. They limit nothing until a project quota is set on the
    server; RV(quotas) says which directories need which limit.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.attributes.dry_run
  - clusterkit.storage.api
  - clusterkit.storage.api.changes
attributes:
  diff_mode:
    support: full
    details:
      - One entry for each claim that changes.
  idempotent:
    support: partial
    details:
      - A relative size grows again with each run that has finished.
options:
  claims:
    description:
      - The claims. All must come to their size, or the module fails after it has done the others.
      - Exactly one of O(claims), O(selection) and O(plan) is needed. With O(selection), claims that are refused are
        reported and do not fail the module. An empty list or selection is an error and never means all.
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
      size:
        description: As O(size), for this claim.
        type: str
  selection:
    description: Which claims are meant. A claim must fit all criteria that are given.
    type: dict
    suboptions:
      namespaces:
        description: Namespaces, or patterns.
        type: list
        elements: str
      names:
        description: Names, or patterns.
        type: list
        elements: str
      labels:
        description: Labels with their values.
        type: dict
      storage_classes:
        description: Names of StorageClasses; an empty string means claims without one.
        type: list
        elements: str
  size:
    description:
      - The new size as a quantity of Kubernetes such as V(20Gi), V(1.3Gi) or V(1500M); or by how much more than the
        claim has now, V(+5Gi) or V(+20%). Percent are rounded up to whole MiB.
    type: str
  allow_delete_policy:
    description:
      - Whether a volume may grow whose policy is not V(Retain).
    type: bool
    default: false
  storage_servers:
    description:
      - Which host holds which shares, and under which addresses and paths clients see them; see the README.
      - With C(size) in the entry of a share, C(overcommitted) in RV(shares) is found.
    type: list
    elements: dict
    default: []
  wait:
    description: Whether to wait for the resizer of CSI volumes.
    type: bool
    default: true
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get, list and patch on persistentvolumes and persistentvolumeclaims, and patch on
    persistentvolumeclaims/status, of all namespaces; list on storageclasses (storage.k8s.io); for CSI volumes with
    O(wait) watch on persistentvolumeclaims; with O(plan) get on the namespace kube-system."
  - Pods see the new size of an NFS volume at once, since it is the size of the file system on the server or of the
    quota there.
seealso:
  - module: clusterkit.storage.pv_reclaim
  - module: clusterkit.storage.storage_plan
  - name: Expanding persistent volume claims
    description: What StorageClass and resizer do.
    link: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
"""

EXAMPLES = r"""
- name: Two claims get 20Gi
  clusterkit.storage.pvc_expand:
    claims:
      - {namespace: shop, name: data}
      - {namespace: shop, name: images}
    size: 20Gi

- name: All claims of a namespace get a fifth more
  clusterkit.storage.pvc_expand:
    selection:
      namespaces: [shop]
    size: +20%
"""

RETURN = r"""
claims:
  description: Each claim that is not RV(unchanged), sorted by namespace and name, also when some of them failed.
  returned: always, once the claims were read
  type: list
  elements: dict
  contains:
    claim: {description: Namespace and name., type: str, sample: shop/data}
    state:
      description:
        - V(changed), V(pending) (the resizer is at it), V(refused), V(gone), V(stale), V(failed) or
          V(not_started).
      type: str
      sample: changed
    reason: {description: Why it did not grow., type: str}
    note: {description: What else is to be known., type: str}
    size: {description: "The size it gets, as the API server spells it.", type: str, sample: 20Gi}
    capacity: {description: What the claim has., type: str, sample: 20Gi}
    request: {description: What the claim asks for., type: str, sample: 20Gi}
    volume: {description: Its volume., type: str, sample: pvc-0e2c}
    driver: {description: "V(nfs) or V(csi).", type: str, sample: nfs}
    done:
      description: "What was changed: V(volume), V(status), V(request)."
      type: list
      elements: str
      sample: [volume, status]
unchanged:
  description: Namespace and name of the claims that are as large as wanted.
  returned: always, once the claims were read
  type: list
  elements: str
  sample: [shop/data]
summary:
  description: How many claims ended in which state.
  returned: always, once the claims were read
  type: dict
  sample: {changed: 2, refused: 1}
quotas:
  description: Limits in bytes for the directories of these claims.
  returned: always, once the claims were read
  type: list
  elements: dict
  sample:
    - server: 192.0.2.10
      path: /nfs/k8s/a
      share: /srv/k8s
      server_dir: /srv/k8s/a
      limit: 21474836480
      claim: shop/data
shares:
  description:
    - What the volumes of each share promise in bytes, before and after, and by how much that is more than it has.
    - A volume outside of O(storage_servers) counts for the directory above its own.
  returned: always, once the claims were read
  type: list
  elements: dict
  sample:
    - server: 192.0.2.10
      path: /srv/k8s
      promised_before: 10737418240
      promised: 21474836480
      size: 16106127360
      overcommitted: 5368709120
plan_id:
  description: The id of the plan.
  returned: with O(plan)
  type: str
dest:
  description: "The file beside the plan that got all claims as lines of JSON, also those that are RV(unchanged)."
  returned: with O(plan), outside of check mode
  type: str
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _changes, _expand, _expand_run
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    **_expand.ARGUMENTS,
    **_changes.ARGUMENTS,
    "storage_servers": {"type": "list", "elements": "dict", "default": []},
    "wait": {"type": "bool", "default": True},
}


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("claims", "selection", "plan"), ("plan", "size")],
        required_one_of=[("claims", "selection", "plan")],
    )
    module.carry_out("claim", _expand_run.expand, _changes.result_file(module.params["plan"]))


if __name__ == "__main__":
    main()
