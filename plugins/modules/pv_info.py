#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumes as records."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pv_info
short_description: List the PersistentVolumes of a cluster as records
version_added: 0.1.0
description:
  - Lists volumes with all that the life cycle of storage needs to know about them, sorted by name, and counts them.
  - Reads in pages and keeps only the records, so that tens of thousands of volumes are no burden.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
  - clusterkit.storage.api.selection
options:
  provisioner_state:
    description:
      - Whether to find out which provisioners run. Without it RV(volumes[].provisioner_state) is V(unknown).
      - Needed for O(selection.abandoned).
    type: bool
    default: true
  storage_servers:
    description:
      - Which host holds which shares, and under which addresses and paths clients see them; see the README.
        With it RV(volumes[].share) and RV(volumes[].server_dir) are found.
    type: list
    elements: dict
    default: []
  plan_for:
    description:
      - Also reads what M(clusterkit.storage.storage_plan) has to know to plan this action; V(cleanup) is for
        C(undelete) and C(purge), too.
    type: str
    choices: [reclaim, expand, backup, restore, cleanup]
  dest:
    description:
      - A file, on the machine where the module runs, that gets the records as lines of JSON instead of the result.
        The first line tells of the set. The file is replaced in one step and has mode 0600, in check mode too.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get and list on persistentvolumes; get on the namespace kube-system; with
    O(provisioner_state) also list on leases (coordination.k8s.io), endpoints, deployments and statefulsets (apps) of
    all namespaces. With O(plan_for=reclaim) also list on namespaces, get and list on persistentvolumeclaims of all
    namespaces, and list on pods of the namespace default; with O(plan_for=expand) list on persistentvolumeclaims and
    storageclasses (storage.k8s.io), and with O(plan_for=backup) and O(plan_for=restore) also list on pods, deployments
    and statefulsets of all namespaces. With O(plan_for=cleanup) all that O(plan_for=reclaim) and O(plan_for=expand)
    need, and list on pods, replicationcontrollers, daemonsets, replicasets (apps), jobs and cronjobs (batch) of all
    namespaces."
  - A provisioner is V(running) if its lock (Lease or Endpoints) was renewed within 60 seconds by the clock of the API
    server; one that takes no lock, if a pod of its Deployment or StatefulSet is ready.
seealso:
  - module: clusterkit.storage.pv_reclaim
  - module: clusterkit.storage.storage_plan
  - module: kubernetes.core.k8s_info
"""

EXAMPLES = r"""
- name: Released volumes whose provisioner is gone
  clusterkit.storage.pv_info:
    selection:
      phases: [Released]
      abandoned: true
  register: left_over

- name: How full is the promise
  ansible.builtin.debug:
    var: left_over.counts

- name: All volumes of one share, into a file
  clusterkit.storage.pv_info:
    selection:
      server: 192.0.2.10
      path_prefix: /nfs/k8s
    dest: /var/tmp/volumes.jsonl
"""

RETURN = r"""
volumes:
  description: The records, sorted by name; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    schema: {description: Version of the record., type: int, sample: 1}
    name: {description: Name., type: str, sample: pvc-0e2c}
    uid: {description: Uid., type: str}
    resource_version: {description: Version of the object., type: str, sample: "4711"}
    phase: {description: Phase., type: str, sample: Released}
    deleting: {description: Since when it is being deleted., type: str}
    policy: {description: Reclaim policy., type: str, sample: Retain}
    storage_class: {description: StorageClass; empty if there is none., type: str, sample: managed-nfs-storage}
    provisioner: {description: Who made it; null for volumes made by hand., type: str, sample: fuseim.pri/ifs}
    provisioner_state: {description: "V(running), V(stopped) or V(unknown).", type: str, sample: running}
    driver: {description: "V(nfs), V(csi) or V(other).", type: str, sample: nfs}
    csi: {description: "C(driver), C(handle) and C(attributes) of a CSI volume.", type: dict}
    server: {description: NFS server., type: str, sample: 192.0.2.10}
    path: {description: Path as in the volume., type: str, sample: /nfs/k8s/dpv/test-data-pvc-0e2c}
    share: {description: C(server_path) of the entry of O(storage_servers)., type: str}
    server_dir: {description: The directory on that host., type: str}
    read_only: {description: Whether it is mounted read-only., type: bool, sample: false}
    capacity: {description: Bytes., type: int, sample: 1073741824}
    access_modes: {description: Access modes., type: list, elements: str, sample: [ReadWriteMany]}
    mount_options: {description: Mount options., type: list, elements: str, sample: [hard]}
    claim: {description: "C(namespace), C(name) and C(uid) of the claim that it names.", type: dict}
    finalizers: {description: Finalizers., type: list, elements: str, sample: [kubernetes.io/pv-protection]}
    released_at:
      description: Since when it is Released or Failed; null if that is not known.
      type: str
      sample: "2026-03-01T12:00:00Z"
    annotations: {description: Annotations., type: dict}
    labels: {description: Labels., type: dict}
counts:
  description:
    - How many C(volumes) and C(bytes), in all and C(by_phase), C(by_storage_class) and C(by_policy).
  returned: success
  type: dict
  sample:
    volumes: 2
    bytes: 2147483648
    by_phase: {Released: {volumes: 2, bytes: 2147483648}}
    by_storage_class: {managed-nfs-storage: {volumes: 2, bytes: 2147483648}}
    by_policy: {Retain: {volumes: 2, bytes: 2147483648}}
cluster_uid:
  description: Uid of the namespace kube-system, which stands for the cluster.
  returned: success
  type: str
complete:
  description: Whether these are all volumes of the cluster.
  returned: success
  type: bool
listed_at:
  description: When the list was made, by the clock of the API server.
  returned: success
  type: str
  sample: "2026-03-01T12:00:00Z"
dest:
  description: The file with the records.
  returned: with O(dest)
  type: str
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _listing, _selection
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "selection": {"type": "dict", "options": _selection.ARGUMENTS},
    "provisioner_state": {"type": "bool", "default": True},
    "storage_servers": {"type": "list", "elements": "dict", "default": []},
    "plan_for": {"type": "str", "choices": ["reclaim", "expand", "backup", "restore", "cleanup"]},
    "dest": {"type": "path"},
}


def main() -> None:
    module = ApiModule(ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        selection = _selection.Selection(given["selection"] or {})
        found = _listing.read(
            module.client(),
            selection,
            servers=given["storage_servers"],
            provisioner_state=given["provisioner_state"],
            plan_for=given["plan_for"],
        )
        result = _listing.result(found, given["dest"])
    except (ApiError, ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
