#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories with owner, group, mode and SELinux type, as a whole list."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_directories
short_description: Make directories with owner, group, mode and SELinux type
version_added: 0.1.0
description:
  - Takes a whole list of directories, checks all of it, then makes the missing ones and sets owner, group, mode
    and, where asked, the SELinux type.
  - Only the directories themselves are changed, never what they hold, and none is ever removed.
  - Missing parents are made too, with owner root, group root and mode 0755, and are listed in the result.
  - Nothing is changed when anything in the list is wrong. A symbolic link or a file
    in the place of a directory is refused.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - An owner or a group that does not exist is only warned about in check mode, since it may be made before.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  directories:
    description:
      - The directories, in any order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Absolute path, without C(..), and not a symbolic link.
        type: str
        required: true
      owner:
        description:
          - Name or number of the owner.
        type: str
        default: root
      group:
        description:
          - Name or number of the group.
        type: str
        default: root
      mode:
        description:
          - Mode as an octal string, for example V("0777") or V("2775"). Setuid, setgid and sticky bits are set as
            they are given here.
          - A number without quotes is refused, because YAML may have converted it.
        type: raw
        default: "0755"
      setype:
        description:
          - SELinux type of the directory, for example V(public_content_rw_t). Without it the type is left alone; on a
            host without SELinux it has no effect.
          - It is not recorded in the policy, so relabelling the whole host takes it away until the next run. See
            M(community.general.sefcontext) to record it.
        type: str
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.nfs_exports
  - module: community.general.sefcontext
"""

EXAMPLES = r"""
- name: Make the directories of two volumes
  clusterkit.storage.nfs_directories:
    directories:
      - path: /srv/nfs/data
        mode: "0777"
      - path: /srv/nfs/images
        owner: "1000"
        group: users
        mode: "2775"
"""

RETURN = r"""
directories:
  description: The directories of the list.
  returned: always, except when the list is refused
  type: list
  elements: dict
  contains:
    path:
      description: The directory.
      type: str
    changed:
      description: Whether it is made or changed.
      type: bool
    created:
      description: Whether it is made.
      type: bool
    owner:
      description: Name of the owner, or the number if it has no name. Missing in check mode if not known yet.
      type: str
    group:
      description: Name of the group, or the number if it has no name. Missing in check mode if not known yet.
      type: str
    mode:
      description: Mode as an octal string.
      type: str
    uid:
      description: Number of the owner.
      type: int
    gid:
      description: Number of the group.
      type: int
    setype:
      description: SELinux type.
      type: str
      returned: when it was asked for and SELinux is on
    msg:
      description: Why this directory could not be made or changed.
      type: str
      returned: failure
parents:
  description: Parents that are made, outermost first.
  returned: always, except when the list is refused
  type: list
  elements: str
problems:
  description: Everything that is wrong, one element each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils._directories import ensure_directories

ARGUMENT_SPEC = {
    "directories": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "raw", "default": "0755"},
            "setype": {"type": "str"},
        },
    },
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    outcome = ensure_directories(module.params["directories"], check_mode=module.check_mode)
    for warning in outcome.warnings:
        module.warn(warning)
    if outcome.refused:
        module.fail_json(msg=outcome.message, problems=outcome.problems)
    result = {
        "changed": outcome.changed,
        "directories": outcome.directories,
        "parents": outcome.parents,
        "diff": outcome.diff,
    }
    if outcome.problems:
        module.fail_json(msg=outcome.message, problems=outcome.problems, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
