#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The generations of volumes that a repository holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_backup_info
short_description: List the backups of volumes
version_added: 0.1.0
description:
  - Lists the generations of a repository, with the objects that belong to them. That is enough to create volumes and
    claims again on an empty cluster.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.host
  - clusterkit.storage.attributes.backup
  - clusterkit.storage.backup
options:
  volumes:
    description:
      - Only generations of these volumes. By default of all.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the PersistentVolume.
        type: str
        required: true
      namespace:
        description:
          - Namespace that its claim had.
        type: str
        default: ""
  namespaces:
    description:
      - Only generations of volumes with a claim in these namespaces.
    type: list
    elements: str
    default: []
  objects:
    description:
      - Of which generations the objects are read. V(latest) is the newest good one of each volume.
      - With restic each takes a call of its own.
    type: str
    choices: [none, latest, all]
    default: none
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.volume_restore
"""

EXAMPLES = r"""
- name: See what can be restored in a namespace
  clusterkit.storage.volume_backup_info:
    engine: rsync
    repository: /backup/volumes
    namespaces: [web]
    objects: latest
"""

RETURN = r"""
generations:
  description: The generations, those of one volume from the oldest to the newest.
  returned: success
  type: list
  elements: dict
  contains:
    engine:
      description: The engine.
      type: str
    generation:
      description: Name of the generation for rsync, id of the snapshot for restic.
      type: str
    namespace:
      description: Namespace of the claim.
      type: str
    name:
      description: Name of the PersistentVolume.
      type: str
    claim:
      description: Name of the claim.
      type: str
    time:
      description: When it was begun, as RFC 3339.
      type: str
    complete:
      description: Whether everything that was there could be copied.
      type: bool
    damaged:
      description: Whether a verification has found files in it that are not what was recorded. Always false for restic.
      type: bool
    latest:
      description: Whether it is the newest one that is complete and not damaged.
      type: bool
    files:
      description: Number of its files; V(null) for restic.
      type: int
    bytes:
      description: Sum of the sizes of its files; V(null) for restic.
      type: int
    objects:
      description: The class, the volume and the claim as a List that can be applied; V(null) if not asked for.
      type: dict
    objects_original:
      description: The same as they were; V(null) if not asked for.
      type: dict
problems:
  description: Everything that is wrong, one element each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _backup_run, _backup_settings

ARGUMENT_SPEC = {
    **_backup_settings.REPOSITORY_ARGUMENTS,
    "volumes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": _backup_settings.VOLUME_ARGUMENTS,
    },
    "namespaces": {"type": "list", "elements": "str", "default": []},
    "objects": {"type": "str", "choices": ["none", "latest", "all"], "default": "none"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    settings = _backup_settings.of_arguments(module.params)
    wanted = module.params["volumes"]
    problems = settings.problems() + _backup.identities_problems(wanted)
    _backup_run.refuse(module, problems)
    with _backup_run.told(module):
        found = _backup_run.listing(settings, wanted, module.params["namespaces"], objects=module.params["objects"])
        module.exit_json(changed=False, generations=found)


if __name__ == "__main__":
    main()
