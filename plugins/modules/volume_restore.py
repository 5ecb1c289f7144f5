#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations of volumes, brought back into directories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_restore
short_description: Restore directories of volumes from their backups
version_added: 0.1.0
description:
  - Takes a whole list of restores. Each brings a generation, or some paths of it, into the directory of the same or of
    another volume.
  - Nothing is overwritten. A generation is restored beside the directory, in C(.clusterkit/restore) of its file system,
    then compared with what was recorded (names, types, sizes, owners, modes, times and contents), then both are
    exchanged in one step, and what was there goes into quarantine (C(.clusterkit/trash)).
  - A directory that is exported itself, or a mount point, has to stay. There every name in it is exchanged, one after
    the other. A run that is killed meanwhile is finished by the next one on the same file system.
  - Refused where the disk has no room for both, and where NFSv4 clients have files of the directory open. What
    clients of NFSv3 and processes of this host use cannot be known; stop the pods first.
  - One restore that fails does not stop the others, and leaves its directory as it is.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
  - clusterkit.storage.attributes.backup
  - clusterkit.storage.backup
  - clusterkit.storage.backup.copy
attributes:
  check_mode:
    support: full
    details:
      - Finds the generation and looks for room; what is in it is not read.
  diff_mode:
    support: full
    details:
      - Shows directories and generations, not their files.
  idempotent:
    support: none
    details:
      - Each run restores, and puts what was there into quarantine.
options:
  volumes:
    description:
      - What is restored where.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the PersistentVolume that was backed up.
        type: str
        required: true
      namespace:
        description:
          - Namespace that its claim had.
        type: str
        default: ""
      generation:
        description:
          - V(latest) for the newest good one, or a generation as
            RV(clusterkit.storage.volume_backup_info#module:generations) names it, or the beginning of one.
        type: str
        default: latest
      server_dir:
        description:
          - Directory on this host into which it is restored, an absolute path in which nothing is a symbolic link. It
            is made if it is not there; the directory above must be.
        type: str
        required: true
      share:
        description:
          - Share in which O(volumes[].server_dir) lies, which may be the same. It decides where C(.clusterkit) is. By
            default the directory above.
        type: str
      paths:
        description:
          - Single files and directories to restore, relative to the root of the volume. By default everything, which
            also means that what is not in the generation goes into quarantine.
        type: list
        elements: str
        default: []
      target_name:
        description:
          - Name of the PersistentVolume whose directory O(volumes[].server_dir) is, for the records of the
            quarantine. By default O(volumes[].name).
        type: str
      uid:
        description:
          - Its uid.
        type: str
  allow_open:
    description:
      - Whether a directory is exchanged although NFSv4 clients have files of it open. They go on with the files that
        are in quarantine then.
      - In the grace period of a server that has just booted nobody knows what is open, and it is needed, too.
    type: bool
    default: false
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.volume_backup_info
  - module: clusterkit.storage.volume_dirs
"""

EXAMPLES = r"""
- name: Bring a volume back to its latest backup
  clusterkit.storage.volume_restore:
    engine: rsync
    repository: /backup/volumes
    volumes:
      - name: nfs-spv001
        namespace: default
        server_dir: /srv/nfs/spv_001
        share: /srv/nfs/spv_001

- name: Fetch one folder of an older generation
  clusterkit.storage.volume_restore:
    repository: sftp:backup@nas.example.com:/volumes
    password_command: cat /etc/clusterkit/restic-password
    volumes:
      - name: pvc-6f57e98a
        namespace: web
        generation: 4fa2c1d8
        server_dir: /srv/nfs/data/web-content-pvc-6f57e98a
        share: /srv/nfs/data
        paths: [uploads/2026]
"""

RETURN = r"""
volumes:
  description: What was done for each item, in the order of the list.
  returned: always, except when the list or the repository is refused
  type: list
  elements: dict
  contains:
    name:
      description: Name of the PersistentVolume that was backed up.
      type: str
    namespace:
      description: Namespace that its claim had.
      type: str
    server_dir:
      description: The directory.
      type: str
    paths:
      description: The paths asked for.
      type: list
      elements: str
    generation:
      description: The generation.
      type: str
    quarantined:
      description: Folder in quarantine that has what was there before; empty if nothing was.
      type: str
    files:
      description: Number of restored files, directories and links.
      type: int
    bytes:
      description: Sum of the sizes of the files.
      type: int
    changed:
      description: Whether it was, or would be, restored.
      type: bool
    failed:
      description: Whether something went wrong.
      type: bool
    seconds:
      description: How long it took.
      type: float
    msg:
      description: What went wrong.
      type: str
problems:
  description: Everything that is wrong, one element each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup_run,
    _backup_settings,
    _own_folder,
    _restore_run,
)

ARGUMENT_SPEC = {
    **_backup_settings.REPOSITORY_ARGUMENTS,
    **_backup_settings.COPY_ARGUMENTS,
    "volumes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            **_backup_settings.GENERATION_ARGUMENTS,
            "server_dir": {"type": "str", "required": True},
            "share": {"type": "str"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "target_name": {"type": "str"},
            "uid": {"type": "str"},
        },
    },
    "allow_open": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    settings = _backup_settings.of_arguments(module.params)
    items = module.params["volumes"]
    _backup_run.carry_out(
        module,
        settings.problems() + _restore_run.read_items(items),
        lambda: _restore_run.restore(
            items,
            settings,
            _own_folder.Places(),
            allow_open=module.params["allow_open"],
            check_mode=module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
