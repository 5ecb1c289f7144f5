#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods and their NFS volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_info
short_description: List the pods of a cluster with their NFS volumes
version_added: 0.1.0
description:
  - Reads all pods that have a node, all nodes, and what M(clusterkit.storage.storage_plan) needs besides for
    V(recover), and writes it to a file of JSON lines.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
options:
  dest:
    description:
      - The file, on the machine where the module runs. It is replaced in one step and has mode 0600.
      - Without it the records are returned.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: list on pods, nodes, namespaces and persistentvolumes, and get on the namespace
    kube-system."
seealso:
  - module: clusterkit.storage.storage_plan
  - module: clusterkit.storage.pod_recover
"""

EXAMPLES = r"""
- name: Keep what the API knows of the pods
  clusterkit.storage.pod_info:
    dest: /var/tmp/pods.jsonl
"""

RETURN = r"""
counts:
  description: How many pods there are, how many of them have NFS volumes, and how many are being deleted.
  returned: success
  type: dict
  sample: {pods: 120, nfs: 14, deleting: 3}
cluster_uid:
  description: The uid of the namespace kube-system.
  returned: success
  type: str
listed_at:
  description: When the pods were listed, by the API server's clock.
  returned: success
  type: str
  sample: "2026-01-01T00:00:00Z"
pods:
  description: The pods; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    schema: {description: Version of the record., type: int, sample: 1}
    kind: {description: "V(Pod).", type: str, sample: Pod}
    namespace: {description: Namespace., type: str, sample: shop}
    name: {description: Name., type: str, sample: web-0}
    uid: {description: Its uid., type: str}
    static_uid: {description: "Of the mirror of a static pod, the uid that kubelet gives that one.", type: str}
    resource_version: {description: Its resourceVersion., type: str, sample: "7"}
    node: {description: Its node., type: str, sample: node1}
    phase: {description: Its phase., type: str, sample: Running}
    deleting: {description: "Its deletionTimestamp, when its grace period ends, or null.", type: str}
    finalizers: {description: Its finalizers., type: list, elements: str}
    owner: {description: "Who makes it again when it is gone, or null.", type: str, sample: StatefulSet web}
    volumes:
      description:
        - "Its volumes that lie on NFS, and directories of its node: name, kind (V(nfs) or V(hostPath)) and source."
      type: list
      elements: dict
      sample:
        - {name: data, kind: nfs, source: "192.0.2.10:/srv/nfs/data"}
nodes:
  description: The nodes; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    schema: {description: Version of the record., type: int, sample: 1}
    kind: {description: "V(Node).", type: str, sample: Node}
    name: {description: Name., type: str, sample: node1}
    ready: {description: Whether it is Ready., type: bool}
    since: {description: Since when., type: str}
    addresses: {description: Its addresses and host names., type: list, elements: str}
dest:
  description: The file.
  returned: with O(dest)
  type: str
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _pod_set, _pods
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines

ARGUMENTS = {"dest": {"type": "path"}}


def main() -> None:
    module = ApiModule(ARGUMENTS, supports_check_mode=True)
    dest = module.params["dest"]
    try:
        found = _pod_set.read(module.client())
        if dest:
            replace_lines(dest, _pods.lines(found))
    except (ApiError, OSError) as error:
        module.fail_json(msg=str(error))
    counts = {
        "pods": len(found.pods),
        "nfs": sum(1 for one in found.pods if _pods.uses_nfs(one)),
        "deleting": sum(1 for one in found.pods if one["deleting"]),
    }
    result = {"counts": counts, "cluster_uid": found.cluster_uid, "listed_at": found.listed_at}
    if dest:
        module.exit_json(changed=False, dest=dest, pods=[], nodes=[], **result)
    module.exit_json(changed=False, pods=found.pods, nodes=found.nodes, **result)


if __name__ == "__main__":
    main()
