#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why claims, pods and volumes are stuck."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_diagnose
short_description: Say why a claim, a pod or a volume is stuck, and how to repair it
version_added: 0.1.0
description:
  - Looks at claims, volumes, classes, provisioners, pods, Services and manifests, and names for each object that is
    stuck the cause, in one sentence of at most 30 words with the repair, and the evidence.
  - Says nothing about what is as it should be. The guide on diagnosis lists all causes.
  - Some causes cannot be told by the API alone. Such an answer has RV(findings[].certainty) V(probable) and says what
    to look at, unless O(exports), O(directories) or O(mounts) hold what the hosts say. The playbook
    C(clusterkit.storage.diagnose) gathers that.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
options:
  namespace:
    description:
      - Only what is in this namespace, and the volumes that it depends on. Without it the whole cluster.
    type: str
  claim:
    description:
      - Only this claim of O(namespace), and the volume that it depends on.
    type: str
  pod:
    description:
      - Only this pod of O(namespace), its claims and their volumes.
    type: str
  manifests:
    description:
      - Objects that the API has refused, or that are to be applied, as data. An API version that is gone, and a
        selector that does not match its pod template, are found in them.
    type: list
    elements: dict
    default: []
  exports:
    description:
      - What M(clusterkit.storage.nfs_exports_info) returned on the NFS servers, one element a server, with its names
        added.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name of the server.
        type: str
        required: true
      addresses:
        description: Other names and addresses by which volumes may call it.
        type: list
        elements: str
        default: []
      exports:
        description: The effective table, elements with C(path), C(host) and C(options).
        type: list
        elements: dict
      versions:
        description: NFS versions that are served.
        type: list
        elements: str
      threads:
        description: Number of nfsd threads; 0 means that nothing is served.
        type: int
  directories:
    description:
      - Directories of volumes on the NFS servers, one element a server.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name of the server.
        type: str
        required: true
      addresses:
        description: Other names and addresses by which volumes may call it.
        type: list
        elements: str
        default: []
      directories:
        description:
          - Elements with C(path), as clients see it, C(exists), and where it exists C(uid), C(gid) and C(mode) (an
            octal string).
        type: list
        elements: dict
  mounts:
    description:
      - What M(clusterkit.storage.nfs_mounts_info) returned on the nodes, one element a node, with its name added.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name of the node in the cluster.
        type: str
        required: true
      addresses:
        description:
          - All names and addresses of the node, to tell whether it is a client of an export. Its Node object may know
            those of the cluster's network only.
        type: list
        elements: str
        default: []
      mounts:
        description: The mounts, elements with C(path), C(source), C(pod) and C(health).
        type: list
        elements: dict
      servers:
        description: The servers of the mounts, elements with C(address) and C(answers).
        type: list
        elements: dict
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights, all of them for the whole cluster: list on persistentvolumes, persistentvolumeclaims,
    pods, events, services, nodes and endpoints; storageclasses (storage.k8s.io), deployments and statefulsets (apps),
    endpointslices (discovery.k8s.io), ingresses (networking.k8s.io) and leases (coordination.k8s.io); get on pods/log;
    create on subjectaccessreviews (authorization.k8s.io), which changes nothing."
  - A right that is missing is no failure. RV(unavailable) names it, and the answers that it costs. With O(namespace),
    what may not be listed in the whole cluster is listed there.
  - Logs are read of at most 40 containers, of provisioners that claims wait for and of containers that failed.
seealso:
  - module: clusterkit.storage.nfs_exports_info
  - module: clusterkit.storage.nfs_mounts_info
  - module: clusterkit.storage.pv_info
"""

EXAMPLES = r"""
- name: Why does this claim wait
  clusterkit.storage.storage_diagnose:
    namespace: shop
    claim: data
  register: answer

- name: Show it
  ansible.builtin.debug:
    msg: "{{ answer.findings | map(attribute='sentence') }}"

- name: Will the API take these manifests
  clusterkit.storage.storage_diagnose:
    namespace: shop
    manifests: "{{ lookup('ansible.builtin.file', 'shop.yml') | from_yaml_all }}"

- name: The whole cluster, with what a server exports
  clusterkit.storage.storage_diagnose:
    exports:
      - host: nfs1
        addresses: [192.0.2.10]
        threads: 8
        versions: ["4.2"]
        exports:
          - path: /srv/nfs/data
            host: 192.0.2.0/24
            options: [rw, secure, root_squash, anonuid=65534]
"""

RETURN = r"""
findings:
  description: What is stuck, claims first, then pods, volumes and the rest; empty if all is well.
  returned: success
  type: list
  elements: dict
  contains:
    object:
      description: What is stuck.
      type: dict
      contains:
        kind: {description: Kind., type: str, sample: PersistentVolumeClaim}
        namespace: {description: Namespace; empty for objects of the cluster., type: str, sample: shop}
        name: {description: Name., type: str, sample: data}
    cause:
      description: The cause, a fixed identifier. The guide on diagnosis lists all of them.
      type: str
      sample: class-unknown
    sentence:
      description: Object, cause and repair, in at most 30 words.
      type: str
      sample: >-
        Claim shop/data asks for class nsf, which does not exist, nor a volume of it; correct storageClassName (nfs?),
        or make the class.
    evidence: {description: What was seen., type: list, elements: str, sample: ["spec.storageClassName: nsf"]}
    certainty: {description: "V(certain) or V(probable).", type: str, sample: certain}
    check: {description: What to look at when it is probable; empty when it is certain., type: str}
places:
  description: Where the files of the volumes lie that probable answers are about; O(directories) can tell of them.
  returned: success
  type: list
  elements: dict
  contains:
    server: {description: Server as the volume calls it., type: str, sample: 192.0.2.10}
    path: {description: Path as in the volume., type: str, sample: /srv/nfs/data}
unavailable:
  description: What this user may not read, or could not.
  returned: success
  type: list
  elements: dict
  contains:
    verb: {description: The verb that is missing., type: str, sample: list}
    resource: {description: The resource., type: str, sample: deployments.apps}
    costs: {description: Which answers are missing for it., type: str}
    reason: {description: The API's own words., type: str}
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose, _diagnose_read
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

_HOST = {"host": {"type": "str", "required": True}, "addresses": {"type": "list", "elements": "str", "default": []}}
ARGUMENTS = {
    "namespace": {"type": "str"},
    "claim": {"type": "str"},
    "pod": {"type": "str"},
    "manifests": {"type": "list", "elements": "dict", "default": []},
    "exports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **_HOST,
            "exports": {"type": "list", "elements": "dict"},
            "versions": {"type": "list", "elements": "str"},
            "threads": {"type": "int"},
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**_HOST, "directories": {"type": "list", "elements": "dict"}},
    },
    "mounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **_HOST,
            "mounts": {"type": "list", "elements": "dict"},
            "servers": {"type": "list", "elements": "dict"},
        },
    },
}


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        required_by={"claim": ["namespace"], "pod": ["namespace"]},
        mutually_exclusive=[("claim", "pod")],
    )
    given = module.params
    target = _diagnose.Target(given["namespace"] or "", given["claim"] or "", given["pod"] or "")
    try:
        facts, unavailable = _diagnose_read.read(module.client(), target.namespace)
        problem = _diagnose.missing(facts, target)
    except ApiError as error:
        module.fail_json(msg=str(error))
    if problem:
        module.fail_json(msg=problem)
    facts.asked = bool(target.claim or target.pod)
    for name in ("manifests", "exports", "directories", "mounts"):
        setattr(facts, name, given[name])
    module.exit_json(changed=False, **_diagnose.result(facts, target), unavailable=unavailable.entries)


if __name__ == "__main__":
    main()
