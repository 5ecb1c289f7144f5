#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_probe
short_description: Try whether a host can mount NFS exports and write to them
version_added: 0.1.0
author:
  - The clusterkit.storage authors (@clusterkit)
description:
  - Mounts each export in a mount namespace of its own, makes a file there, writes it through to the server, reads it
    back, and takes everything away again. Nothing is left behind, on the host or on the server, also when the module
    is killed on the way.
  - The exports are tried side by side, each with a deadline. They are mounted V(soft) and apart from all live mounts,
    so that a server that does not answer delays the play by the deadline at most.
  - The file is made by root. A server that maps root to an unprivileged user (C(root_squash)) may refuse it where
    it would not refuse others.
  - Fails when one of the exports is not usable; the result tells about each.
options:
  targets:
    description:
      - The exports to try.
    type: list
    elements: dict
    required: true
    suboptions:
      server:
        description:
          - Name or address of the server.
        type: str
        required: true
      path:
        description:
          - The path, as the clients see it.
        type: str
        required: true
      options:
        description:
          - Options of nfs(5) and mount(8) to mount with. Those that decide how long to wait (such as V(hard) and
            C(timeo)) are replaced.
        type: list
        elements: str
        default: []
      read_only:
        description:
          - Only list the directory.
        type: bool
        default: false
  timeout:
    description:
      - Seconds that one try may take. The kernel waits a third of that for an answer of the server.
    type: float
    default: 60
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: partial
    details:
      - In check mode only the input is checked and nothing is tried; the task is shown as skipped.
  diff_mode:
    support: N/A
    details:
      - Nothing is changed.
  idempotent:
    support: full
    details:
      - Never reports a change.
seealso:
  - module: clusterkit.storage.nfs_mounts
"""

EXAMPLES = r"""
- name: See that the node can use the shares of the volumes
  clusterkit.storage.nfs_probe:
    targets:
      - server: nfs1.example.com
        path: /srv/nfs/data
        options: [nfsvers=4.1]
      - server: nfs1.example.com
        path: /srv/nfs/packages
        read_only: true
"""

RETURN = r"""
targets:
  description: What was found, in the order of the input.
  returned: when the input was right, except in check mode
  type: list
  elements: dict
  contains:
    server:
      description: The server.
      type: str
    path:
      description: The path.
      type: str
    options:
      description: The options asked for.
      type: list
      elements: str
    read_only:
      description: Whether it was only listed.
      type: bool
    ok:
      description: Whether the export can be used.
      type: bool
    msg:
      description: Why not, with the server's reason.
      type: str
    seconds:
      description: How long it took.
      type: float
problems:
  description: Everything that is wrong with the input. Nothing was tried.
  returned: when the input is wrong
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_probe

ARGUMENTS = {
    "targets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "server": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "options": {"type": "list", "elements": "str", "default": []},
            "read_only": {"type": "bool", "default": False},
        },
    },
    "timeout": {"type": "float", "default": 60},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    targets, problems = _nfs_probe.read_input(module.params["targets"])
    if module.params["timeout"] <= 0:
        problems.append("timeout: must be more than 0 seconds")
    if problems:
        module.fail_json(msg="nothing was tried: " + "; ".join(problems), problems=problems)
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="not tried in check mode: a try mounts the export")
    try:
        results = _nfs_probe.probe_all(targets, module.params["timeout"])
    except OSError as error:
        module.fail_json(msg=f"nothing was tried: {error}")
    failures = [result["msg"] for result in results if not result["ok"]]
    if failures:
        module.fail_json(msg="; ".join(failures), changed=False, targets=results)
    module.exit_json(changed=False, targets=results)


if __name__ == "__main__":
    main()
