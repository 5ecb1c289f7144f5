#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that backups of volumes can be restored."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_backup_verify
short_description: Restore a sample of backups into scratch space and compare it
version_added: 0.1.0
description:
  - Restores a sample of the files of each generation into a folder of its own, compares them with the digests, sizes,
    owners, modes and times that were recorded when the backup was made, and removes them again.
  - With O(engine=rsync) a generation in which a file is not what was recorded is marked as damaged. It is not
    V(latest) any more, and the next backup copies all files anew instead of linking to it.
  - With O(engine=restic) the structure of the repository is checked, too, and a part of its data is read.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
  - clusterkit.storage.attributes.backup
  - clusterkit.storage.backup
  - clusterkit.storage.backup.copy
attributes:
  check_mode:
    support: partial
    details:
      - The generations are looked for, and nothing is restored or compared.
  diff_mode:
    support: N/A
    details:
      - Nothing is changed.
  idempotent:
    support: full
    details:
      - Never reports a change.
options:
  volumes:
    description:
      - The generations to verify. By default the newest good one of each volume of the repository.
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
      generation:
        description:
          - V(latest) for the newest good one, or a generation, or the beginning of one.
        type: str
        default: latest
  sample:
    description:
      - Percent of the files of each generation that are restored, at least one file and at most 500; V(100) restores
        all.
    type: float
    default: 5
  seed:
    description:
      - Chooses the sample. By default each run takes another one.
    type: int
  data_subset:
    description:
      - Percent of the data of a restic repository that is read and checked; V(0) leaves out the check of the
        repository.
    type: float
    default: 5
  scratch:
    description:
      - Folder on this host in which the samples are restored; it needs room for them.
    type: path
    default: /var/lib/clusterkit.storage/verify
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.volume_restore
"""

EXAMPLES = r"""
- name: Prove that the latest backups can be restored
  clusterkit.storage.volume_backup_verify:
    repository: /backup/volumes
    password_file: /etc/clusterkit/restic-password

- name: Compare every file of one volume
  clusterkit.storage.volume_backup_verify:
    engine: rsync
    repository: /backup/volumes
    volumes:
      - name: nfs-spv001
        namespace: default
    sample: 100
"""

RETURN = r"""
volumes:
  description: What was found, for each generation.
  returned: always, except when the list or the repository is refused
  type: list
  elements: dict
  contains:
    name:
      description: Name of the PersistentVolume.
      type: str
    namespace:
      description: Namespace of its claim.
      type: str
    generation:
      description: The generation; empty if there is none.
      type: str
    files:
      description: Number of files, directories and links that were restored and compared.
      type: int
    damaged:
      description: Files whose content is not what was recorded.
      type: list
      elements: str
    failed:
      description: Whether something is wrong.
      type: bool
    seconds:
      description: How long it took.
      type: float
    msg:
      description: What is wrong.
      type: str
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
    **_backup_settings.COPY_ARGUMENTS,
    "volumes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": _backup_settings.GENERATION_ARGUMENTS,
    },
    "sample": {"type": "float", "default": 5},
    "seed": {"type": "int", "no_log": False},
    "data_subset": {"type": "float", "default": 5},
    "scratch": {"type": "path", "default": "/var/lib/clusterkit.storage/verify"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    settings = _backup_settings.of_arguments(module.params)
    wanted = module.params["volumes"]
    problems = settings.problems() + _backup.identities_problems(wanted)
    problems += [
        f"{name}: {module.params[name]:g} is not a number from 0 to 100"
        for name in ("sample", "data_subset")
        if not 0 <= module.params[name] <= 100
    ]
    _backup_run.carry_out(
        module,
        problems,
        lambda: _backup_run.verify(
            wanted,
            settings,
            sample=module.params["sample"],
            data=module.params["data_subset"],
            scratch=module.params["scratch"],
            seed=module.params["seed"],
            check_mode=module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
