#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an NFS server exports and serves at the moment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_exports_info
short_description: Read what an NFS server exports and serves
version_added: 0.1.0
description:
  - Reads the effective table of exports, the exports files with what is wrong in them,
    the values in force in the kernel, the programs registered with rpcbind, and what mountd offers.
  - What cannot be learned is V(null) in the result, and RV(unavailable) says why. Nothing of this is an error.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.host
options:
  timeout:
    description:
      - Seconds that each of the questions to rpcbind and mountd may take.
    type: int
    default: 10
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.nfs_exports
"""

EXAMPLES = r"""
- name: Read what the server exports
  clusterkit.storage.nfs_exports_info:
  register: server
"""

RETURN = r"""
exports:
  description: The effective table, with all defaults spelled out.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The directory.
      type: str
    host:
      description: The client; V(*) is everybody.
      type: str
    options:
      description: The options in force.
      type: list
      elements: str
files:
  description: The exports files.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    exports:
      description: The exports in it, in order.
      type: list
      elements: dict
      contains:
        path:
          description: The directory.
          type: str
        host:
          description: The client; V(*) is everybody.
          type: str
        line:
          description: The line of the file.
          type: int
        lost:
          description: Whether a mistake further up keeps exportfs from reading this export.
          type: bool
    problems:
      description: What is wrong in the file.
      type: list
      elements: str
nfs_utils_version:
  description: Version of nfs-utils.
  returned: always
  type: str
versions:
  description: NFS versions that are served.
  returned: always
  type: list
  elements: str
  sample: ["3", "4.0", "4.1", "4.2"]
threads:
  description: Number of nfsd threads; 0 means that nothing is served.
  returned: always
  type: int
programs:
  description: What is registered with rpcbind.
  returned: always
  type: list
  elements: dict
  contains:
    program:
      description: Program number.
      type: int
    version:
      description: Program version.
      type: int
    protocol:
      description: Transport.
      type: str
    port:
      description: Port.
      type: int
    name:
      description: Name of the program.
      type: str
mount_list:
  description: What mountd offers to clients of NFSv3, as C(showmount -e) lists it.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The directory.
      type: str
    hosts:
      description: The clients.
      type: list
      elements: str
unavailable:
  description: Why a value of the result is V(null), by its name.
  returned: always
  type: dict
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._server_info import collect


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 10}}, supports_check_mode=True)
    module.exit_json(changed=False, **asdict(collect(Places(), timeout=module.params["timeout"])))


if __name__ == "__main__":
    main()
