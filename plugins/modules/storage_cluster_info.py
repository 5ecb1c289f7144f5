#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inputs of a cluster are compared with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_cluster_info
short_description: Read what the wanted classes, volumes, claims and provisioners are compared with
version_added: 0.1.0
description:
  - Reads the version of the cluster, its namespaces, StorageClasses, PersistentVolumes, the claims of the given names
    and the Deployments and StatefulSets that run a provisioner, in one go and in pages.
  - The result is what M(clusterkit.storage.storage_inputs) takes as
    O(clusterkit.storage.storage_inputs#module:cluster).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
options:
  claims:
    description:
      - The wanted claims, each with C(name) and C(namespace) (V(default)). What is no such list is taken for empty;
        M(clusterkit.storage.storage_inputs) says what is wrong with it.
    type: raw
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: list on namespaces, storageclasses, persistentvolumes, deployments and statefulsets,
    get on persistentvolumeclaims and on the namespace kube-system; if Released volumes with policy V(Delete) are there,
    list on leases and endpoints."
seealso:
  - module: clusterkit.storage.storage_inputs
  - module: clusterkit.storage.pv_info
"""

EXAMPLES = r"""
- name: Read what is there
  clusterkit.storage.storage_cluster_info:
    claims: "{{ k8s_storage_claims }}"
  register: live

- name: Say which provisioners there are
  ansible.builtin.debug:
    msg: "{{ live.cluster.controllers | map(attribute='provisioner') | unique }}"
"""

RETURN = r"""
cluster:
  description: What was read.
  returned: success
  type: dict
  contains:
    version: {description: Version of the API server., type: str, sample: v1.37.2}
    namespaces: {description: Names of the namespaces., type: list, elements: str}
    storage_classes: {description: The StorageClasses., type: list, elements: dict}
    volumes:
      description:
        - The PersistentVolumes, without what is not compared.
      type: list
      elements: dict
    claims: {description: Those of the wanted claims that are there., type: list, elements: dict}
    controllers:
      description:
        - "Deployments and StatefulSets that run a provisioner: C(kind), C(namespace), C(name), C(provisioner),
          C(image), C(server), C(path), C(selector), C(release), C(chart)."
      type: list
      elements: dict
      sample:
        - {kind: Deployment, namespace: nfs-provisioner, name: nfs-client-provisioner, provisioner: fuseim.pri/ifs}
    provisioner_states:
      description: V(running) or V(stopped), of provisioners with Released volumes of policy V(Delete).
      type: dict
      sample: {fuseim.pri/ifs: stopped}
    helm: {description: Path of helm on this machine; empty if it is not installed., type: str, sample: /usr/bin/helm}
cluster_uid:
  description: The uid of the namespace kube-system, which stands for the cluster.
  returned: success
  type: str
  sample: 4d6a1b0e-3c6f-4f0e-9d0a-2f1d7f3c8a11
"""

import shutil

from ansible_collections.clusterkit.storage.plugins.module_utils import _cluster_read, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {"claims": {"type": "raw"}}


def main() -> None:
    module = ApiModule(ARGUMENTS, supports_check_mode=True)
    try:
        client = module.client()
        found = _cluster_read.read(client, module.params["claims"])
        uid = _volume_set.cluster_uid(client)
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, cluster={**found, "helm": shutil.which("helm") or ""}, cluster_uid=uid)


if __name__ == "__main__":
    main()
