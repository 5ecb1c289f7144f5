#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_inputs
short_description: Check the inputs of all hosts and of the cluster together, and complete one from the other
version_added: 0.1.0
description:
  - Looks at the variables of the roles P(clusterkit.storage.nfs_server#role), P(clusterkit.storage.nfs_client#role)
    and P(clusterkit.storage.k8s_storage#role) of all hosts at once, with what is known of the hosts and of the live
    cluster, and reports everything that is wrong before anything is changed.
  - Derives the directories and exports that static volumes and provisioners need on their servers.
  - Compares what is wanted with what is there. What the API could not change (a StorageClass, the source of a
    volume, a claim) and what would cost data is a problem, with the old and the new value.
  - Reads and changes nothing itself. The playbook C(clusterkit.storage.site) gathers and hands over everything.
author:
  - The clusterkit.storage authors (@clusterkit)
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
attributes:
  platform:
    support: full
    platforms: posix
seealso:
  - module: clusterkit.storage.nfs_directories
  - module: clusterkit.storage.nfs_exports
  - module: clusterkit.storage.nfs_mounts
  - module: clusterkit.storage.storage_cluster_info
options:
  hosts:
    description: The hosts, each with what is known of it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name in the inventory.
        type: str
        required: true
      address:
        description: Address by which Ansible reaches it.
        type: str
        default: ""
      groups:
        description: What the host is for.
        type: list
        elements: str
        choices: [servers, nodes]
        default: []
      variables:
        description: Its variables of the roles.
        type: dict
        default: {}
      facts:
        description: Its facts, as M(ansible.builtin.setup) finds them with the subset C(network).
        type: dict
        default: {}
      error:
        description: Why it could not be reached or asked; empty if it could.
        type: str
        default: ""
  cluster:
    description: The cluster.
    type: dict
    required: true
    suboptions:
      host:
        description: The host that talks to its API.
        type: str
        default: localhost
      variables:
        description: Variables C(k8s_storage_*), C(storage_*) and C(site_*) of that host.
        type: dict
        default: {}
      error:
        description: Why the API could not be asked; empty if it could.
        type: str
        default: ""
      version:
        description: Version of the API server.
        type: str
        default: ""
      storage_classes:
        description: The live StorageClasses.
        type: list
        elements: dict
        default: []
      volumes:
        description: The live PersistentVolumes, as M(clusterkit.storage.storage_cluster_info) returns them.
        type: list
        elements: dict
        default: []
      claims:
        description: The live claims of the names that are wanted.
        type: list
        elements: dict
        default: []
      namespaces:
        description: The names of the namespaces that are there.
        type: list
        elements: str
        default: []
      controllers:
        description: The provisioners that are there.
        type: list
        elements: dict
        default: []
      provisioner_states:
        description: Whether provisioners run, of which Released volumes with policy V(Delete) are there.
        type: dict
        default: {}
      helm:
        description: The path of helm on that host; empty if it is not installed.
        type: str
  groups:
    description:
      - Groups that the user named himself. They must be there.
    type: dict
    default: {}
    suboptions:
      servers:
        description: The group of the servers; empty if the default is in use.
        type: str
        default: ""
      nodes:
        description: The group of the nodes; empty if the default is in use.
        type: str
        default: ""
  known_groups:
    description: All groups of the inventory.
    type: list
    elements: str
    default: []
  removal:
    description:
      - Whether what the lists name is going to be removed. Then only the lists themselves are judged, and all
        provisioners and classes in them are held.
    type: bool
    default: false
  specs:
    description:
      - The C(options) of the argument specs of the roles, by name of the role; C(k8s_storage) must be there.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Read what is there
  clusterkit.storage.storage_cluster_info:
    claims: "{{ k8s_storage_claims }}"
  register: live

- name: Check what the role k8s_storage is going to get
  clusterkit.storage.storage_inputs:
    cluster: "{{ live.cluster | combine({'variables': wanted}) }}"
    specs:
      k8s_storage: "{{ (lookup('ansible.builtin.file', spec_file) | from_yaml).argument_specs.main.options }}"
  vars:
    wanted:
      k8s_storage_volumes: "{{ k8s_storage_volumes }}"
      k8s_storage_claims: "{{ k8s_storage_claims }}"
  delegate_to: localhost
"""

RETURN = r"""
problems:
  description: Everything that is wrong; the module fails when there is anything.
  returned: always
  type: list
  elements: dict
  sample:
    - host: server1
      variable: nfs_server_exports[3].clients[0].option
      message: unknown key; did you mean "options"?
notes:
  description: What is not wrong but should be known, in the same form.
  returned: always
  type: list
  elements: dict
servers:
  description: For each host of the group C(servers) its complete C(directories) and C(exports).
  returned: success
  type: dict
storage_servers:
  description: Which host holds which shares, and under which addresses and paths clients see them.
  returned: success
  type: list
  elements: dict
shares:
  description: What each node must be able to mount, as O(clusterkit.storage.nfs_probe#module:targets).
  returned: success
  type: list
  elements: dict
uses:
  description: Which volume or provisioner lies in which directory of which host.
  returned: success
  type: list
  elements: dict
verify:
  description: Image, time limit, classes, depth and ordinary user of the verification.
  returned: success
  type: dict
cluster:
  description:
    - C(provisioners), C(classes), C(volumes) and C(claims) with all defaults filled in and images rewritten;
      C(wanted) tells whether there is anything at all.
    - C(releases), the Helm releases with their values. C(missing_namespaces). C(recreate), classes that go and come
      again. C(hold_provisioners) and C(hold_classes), whose volumes are set to V(Retain) before; of the
      classes only volumes that a provisioner in C(hold_made_by) has made. C(restore),
      provisioners whose volumes get their policy back afterwards. C(take_default), classes that stop being the
      default. C(annotated_default), classes that say whether they are it.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _inputs


def argument_spec() -> dict[str, object]:
    host = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "default": ""},
        "groups": {"type": "list", "elements": "str", "choices": ["servers", "nodes"], "default": []},
        "variables": {"type": "dict", "default": {}},
        "facts": {"type": "dict", "default": {}},
        "error": {"type": "str", "default": ""},
    }
    cluster = {
        "host": {"type": "str", "default": "localhost"},
        "variables": {"type": "dict", "default": {}},
        "error": {"type": "str", "default": ""},
        "version": {"type": "str", "default": ""},
        "storage_classes": {"type": "list", "elements": "dict", "default": []},
        "volumes": {"type": "list", "elements": "dict", "default": []},
        "claims": {"type": "list", "elements": "dict", "default": []},
        "namespaces": {"type": "list", "elements": "str", "default": []},
        "controllers": {"type": "list", "elements": "dict", "default": []},
        "provisioner_states": {"type": "dict", "default": {}},
        "helm": {"type": "str"},
    }
    groups = {"servers": {"type": "str", "default": ""}, "nodes": {"type": "str", "default": ""}}
    return {
        "hosts": {"type": "list", "elements": "dict", "default": [], "options": host},
        "cluster": {"type": "dict", "required": True, "options": cluster},
        "groups": {"type": "dict", "default": {}, "options": groups},
        "known_groups": {"type": "list", "elements": "str", "default": []},
        "removal": {"type": "bool", "default": False},
        "specs": {"type": "dict", "required": True},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    result = _inputs.check(**module.params)
    if result["problems"]:
        module.fail_json(_inputs.message(result["problems"]), problems=result["problems"], notes=result["notes"])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
