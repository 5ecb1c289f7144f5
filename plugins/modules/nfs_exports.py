#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exports of an NFS server: checked, written, effective."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_exports
short_description: Keep a list of NFS exports effective
version_added: 0.1.0
description:
  - Takes the whole list of exports, checks all of it, writes one exports file, has it exported,
    and compares the effective table of the server with what the list means.
  - Nothing is changed when anything in the list is wrong. What does not become effective is taken back,
    and the module fails.
  - Exports of other files, and exports that somebody made with C(exportfs -o) for other directories, are left alone.
  - The server is ordered after the mounts that the exports of the file lie on (C(Wants=), C(After=) in a drop-in of
    the unit C(nfs-server)), so that none of them is looked for before it is there, and none that is missing stops it.
  - An export that is missing or different in the effective table, although the file is right, is repaired.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - Where nfs-utils is not installed, or a directory does not exist yet, the result is a prediction,
        and a warning says so.
  diff_mode:
    support: full
    details:
      - Shows the file and, when it differs, the effective table with all defaults spelled out.
  idempotent:
    support: full
options:
  exports:
    description:
      - All exports of the file. Exports that the file had before and that are not listed are withdrawn.
      - An empty list withdraws the exports of a file that this module wrote.
        A file that it did not write is left alone.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Directory to export. It must exist; M(clusterkit.storage.nfs_directories) makes it.
        type: str
        required: true
      clients:
        description:
          - Who may mount the directory, and how.
        type: list
        elements: dict
        required: true
        suboptions:
          host:
            description:
              - Host name, address, network (V(192.0.2.0/24)), wildcard for names (V(*.example.com)),
                or netgroup (V(@name)).
            type: str
            required: true
          options:
            description:
              - Options of exports(5), for example V(rw) or V(no_root_squash). What is not said has the default
                of exports(5), which is V(ro), V(sync), V(root_squash), V(secure), V(no_subtree_check) and so on.
              - A string with commas is taken as a list.
              - They come after, and win over, the options of the export.
            type: list
            elements: str
            default: []
      options:
        description:
          - Options for every client of this export, such as V(fsid=1) or V(crossmnt).
        type: list
        elements: str
        default: []
      comment:
        description:
          - Written above the export.
        type: str
        default: ""
  file:
    description:
      - The file that holds the exports, V(/etc/exports) or a name in V(/etc/exports.d) that ends in V(.exports).
    type: path
    default: /etc/exports.d/clusterkit.exports
  allow_world:
    description:
      - Whether a client may be everybody, such as V(*) or V(0.0.0.0/0).
    type: bool
    default: false
  allow_takeover:
    description:
      - Whether a O(file) that holds exports and was not written by this module may be replaced.
    type: bool
    default: false
  default_mountpoint:
    description:
      - Whether an export that lies on a file system of its own, mounted at C(/srv/data) for example, gets the option
        C(mountpoint=/srv/data) unless its options say otherwise. Then it is not served while the disk is not mounted,
        instead of an empty directory.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that C(exportfs), and the resolution of host names, may take.
    type: int
    default: 30
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.nfs_directories
  - module: clusterkit.storage.nfs_exports_info
"""

EXAMPLES = r"""
- name: Export two directories
  clusterkit.storage.nfs_exports:
    exports:
      - path: /srv/nfs/data
        comment: volumes of the cluster
        clients:
          - host: 192.0.2.0/24
            options: [rw, sync, no_root_squash]
      - path: /srv/nfs/images
        clients:
          - host: 192.0.2.0/24
          - host: build.example.com
            options: [rw]

- name: Withdraw all exports of the file
  clusterkit.storage.nfs_exports:
    exports: []
"""

RETURN = r"""
exports:
  description: The exports of the list, as they are effective.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The directory.
      type: str
    changed:
      description: Whether the effective table changes for this export.
      type: bool
    clients:
      description: For each client the options in force, with all defaults spelled out.
      type: list
      elements: dict
      contains:
        host:
          description: The client.
          type: str
        options:
          description: The options in force.
          type: list
          elements: str
        changed:
          description: Whether the effective table changes for this client.
          type: bool
withdrawn:
  description: Exports that were in the table and are not any more.
  returned: success
  type: list
  elements: dict
foreign:
  description: Exports in the table that come from other files, or that were made by hand.
  returned: success
  type: list
  elements: dict
file_changed:
  description: Whether the file changes.
  returned: success
  type: bool
table_changed:
  description: Whether the effective table changes.
  returned: success
  type: bool
order_changed:
  description: Whether the order in which systemd starts the server and mounts the exported file systems changes.
  returned: success
  type: bool
file_systems:
  description: The file systems that the exports of the list lie on.
  returned: success
  type: list
  elements: dict
  contains:
    mount_point:
      description: Where it is mounted.
      type: str
    type:
      description: Its type, such as V(xfs).
      type: str
    source:
      description: Its device.
      type: str
    size:
      description: Its size in bytes; V(null) where asking could hang.
      type: int
    available:
      description: The bytes that users may still fill; V(null) where asking could hang.
      type: int
    quotas:
      description: The quotas that it keeps, of V(user), V(group) and V(project).
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
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import Request, ensure_exports

ARGUMENT_SPEC = {
    "exports": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "clients": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "host": {"type": "str", "required": True},
                    "options": {"type": "list", "elements": "str", "default": []},
                },
            },
            "options": {"type": "list", "elements": "str", "default": []},
            "comment": {"type": "str", "default": ""},
        },
    },
    "file": {"type": "path", "default": "/etc/exports.d/clusterkit.exports"},
    "allow_world": {"type": "bool", "default": False},
    "allow_takeover": {"type": "bool", "default": False},
    "default_mountpoint": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 30},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    request = Request(**module.params, check_mode=module.check_mode)
    _host_module.run(module, lambda: ensure_exports(request, Places()))


if __name__ == "__main__":
    main()
