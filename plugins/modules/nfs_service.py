#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of an NFS server: its settings, and that they are in force."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_service
short_description: Keep an NFS server running with the settings that are wanted
version_added: 0.1.0
description:
  - Writes C(/etc/nfs.conf.d/zz-clusterkit.conf) and, for O(idmap_domain), C(/etc/idmapd.conf.d/zz-clusterkit.conf),
    starts and enables the server, and compares what is asked for with the values in force in the kernel.
  - The number of threads is changed while the server runs. Everything else of nfsd needs a restart, which is done only
    when the value in force differs. A restart stalls opens and locks of NFSv4 for the grace period, so on a server
    that clients use it needs O(allow_restart).
  - Without V(3) in O(versions), rpcbind and statd are stopped and masked. With it, they are unmasked.
  - Opens the ports in the host's firewall, if told which one.
  - Needs systemd.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - Where the server is not installed yet, the result is a prediction, and a warning says so.
  diff_mode:
    support: full
    details:
      - Shows the files. RV(steps) says everything else.
  idempotent:
    support: full
options:
  threads:
    description:
      - Number of nfsd threads, or V(auto), which is 8 for each processor, at least 16 and at most 256, and no more than
        one for each 16 MiB of memory.
    type: str
    default: auto
  versions:
    description:
      - NFS versions to serve. An empty list leaves them as they are.
    type: list
    elements: str
    choices: ["3", "4.0", "4.1", "4.2"]
    default: []
  ports:
    description:
      - Fixed ports. What is not given stays as it is; without a fixed one, mountd, statd and lockd choose at random.
    type: dict
    suboptions:
      nfs:
        description: Port of nfsd itself, 2049 by default.
        type: int
      mountd:
        description: Port of mountd, for NFSv3.
        type: int
      statd:
        description: Port of statd, for NFSv3.
        type: int
      lockd:
        description: Port of lockd, TCP and UDP, for NFSv3.
        type: int
  grace_time:
    description:
      - Seconds after a start in which NFSv4 clients may only reclaim what they had, from 10 to 3600.
    type: int
  lease_time:
    description:
      - Seconds after which the state of a silent NFSv4 client is dropped, from 10 to 3600.
    type: int
  idmap_domain:
    description:
      - The domain behind the names of users and groups, for clients that use names and not numbers.
    type: str
  allow_restart:
    description:
      - Whether a server that clients use may be restarted.
    type: bool
    default: false
  firewall:
    description:
      - The firewall of the host, whose ports are opened. V(none) touches no firewall.
      - With V(firewalld) a service, with V(ufw) an application profile named C(clusterkit-nfs) is made and allowed.
        With V(nftables) rules are inserted into the chain C(input) of the table C(inet filter).
      - With V(ufw) a port that a rule of the administrator lets in is left to that rule, and a warning says so. A rule
        that keeps everybody out is an error.
      - The ports are those of O(versions) and O(ports); for NFSv3 all of O(ports) but C(nfs) have to be given.
    type: str
    choices: [firewalld, nftables, none, ufw]
    default: none
  timeout:
    description:
      - Seconds that each command, such as a restart, may take.
    type: int
    default: 120
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.nfs_exports
"""

EXAMPLES = r"""
- name: Serve NFSv4 only
  clusterkit.storage.nfs_service:
    versions: ["4.1", "4.2"]

- name: Serve NFSv3, too, through a firewall
  clusterkit.storage.nfs_service:
    versions: ["3", "4.1", "4.2"]
    ports: {mountd: 20048, statd: 32765, lockd: 32803}
    firewall: nftables
"""

RETURN = r"""
steps:
  description: What was done, or in check mode would be done, in words.
  returned: success
  type: list
  elements: str
restarted:
  description: Whether the server was restarted.
  returned: success
  type: bool
threads:
  description: Number of threads in force; 0 when no server runs.
  returned: success
  type: int
versions:
  description: The NFS versions in force.
  returned: success
  type: list
  elements: str
ports:
  description: The ports in force of nfs and, if one of them was given, of the programs of NFSv3.
  returned: success
  type: dict
grace_time:
  description: The grace period in force, in seconds.
  returned: success
  type: int
lease_time:
  description: The lease time in force, in seconds.
  returned: success
  type: int
idmap_domain:
  description: The domain in force, if one was given.
  returned: success
  type: str
clients:
  description: How many clients use the server.
  returned: success
  type: int
firewall_ports:
  description: The ports that the firewall lets in, as C(PORT/PROTOCOL).
  returned: success
  type: list
  elements: str
problems:
  description: Everything that is wrong, one element each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _host_module
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_service_host import (
    Places,
    Request,
    ensure_service,
)

ARGUMENT_SPEC = {
    "threads": {"type": "str", "default": "auto"},
    "versions": {"type": "list", "elements": "str", "choices": ["3", "4.0", "4.1", "4.2"], "default": []},
    "ports": {
        "type": "dict",
        "options": {
            "nfs": {"type": "int"},
            "mountd": {"type": "int"},
            "statd": {"type": "int"},
            "lockd": {"type": "int"},
        },
    },
    "grace_time": {"type": "int"},
    "lease_time": {"type": "int"},
    "idmap_domain": {"type": "str"},
    "allow_restart": {"type": "bool", "default": False},
    "firewall": {"type": "str", "choices": ["firewalld", "nftables", "none", "ufw"], "default": "none"},
    "timeout": {"type": "int", "default": 120},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    request = Request(**module.params, check_mode=module.check_mode)
    _host_module.run(module, lambda: ensure_service(request, Places()))


if __name__ == "__main__":
    main()
