#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the directories of volumes, with the objects of the cluster that belong to them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_backup
short_description: Back up directories of volumes together with their objects
version_added: 0.1.0
description:
  - Takes a whole list of volumes and makes one generation of each, on the file server, straight from the directory.
  - A generation holds the data and, beside it, the claim, the volume and the class as objects that can be created on an
    empty cluster, with the originals.
  - A generation is complete or not there. It is made under a temporary name, flushed, and gets its name last. A run
    that is killed leaves all earlier generations as they are, and what it had copied is not copied again.
  - Owners (as numbers), modes, times, ACLs, extended attributes, hard links and sparse files are kept. What is mounted
    below a directory is not backed up. Neither is C(.clusterkit) in its root.
  - The copy is made of the directory as it is, or of a snapshot of its file system (O(snapshot)).
  - One volume that fails does not stop the others. The module then fails with the results of all.
  - Files that vanish while they are copied are counted, and no fault. Files that cannot be read are one. The
    generation is kept and marked as incomplete then, and never counts as the last good one.
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
      - The engine's own dry run says what would be copied. Of a repository that has still to be made nothing is known.
  diff_mode:
    support: full
    details:
      - Shows generations that are made and removed, not their files.
  idempotent:
    support: none
    details:
      - Each run makes a generation. One of unchanged data takes no space for it.
options:
  volumes:
    description:
      - The volumes.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the PersistentVolume.
        type: str
        required: true
      namespace:
        description:
          - Namespace of its claim; empty for a volume without one.
        type: str
        default: ""
      claim:
        description:
          - Name of its claim.
        type: str
        default: ""
      server_dir:
        description:
          - Its directory on this host, an absolute path in which nothing is a symbolic link. A slash at its end makes
            no difference.
        type: str
        required: true
      objects:
        description:
          - The objects as the API gives them, by the keys V(claim), V(volume) and V(storage_class).
        type: dict
        default: {}
  create:
    description:
      - Whether a repository is made where there is none.
      - Without it, a disk that is not mounted is noticed instead of being filled.
    type: bool
    default: false
  checksum:
    description:
      - Whether rsync reads all files to find out which ones changed, instead of going by size and time. Only for
        O(engine=rsync).
    type: bool
    default: false
  snapshot:
    description:
      - Whether the file systems that the directories lie on are held in read-only snapshots, from which is copied. They
        are made before the first copy and removed after the last, also after a failure. What a killed run has left is
        removed by the next one that makes a snapshot of the same file system.
      - V(none) copies the directories as they are.
      - V(lvm) is for XFS, ext4 and ext3 on a logical volume, thick or thin; needs C(lvs), C(lvcreate) and C(lvremove).
      - V(btrfs) is for directories in a subvolume whose root is mounted.
      - V(auto) takes what fits, and copies a directory as it is where neither can be had. RV(volumes[].snapshot_reason)
        says so then. With the others such a volume fails.
      - In check mode no snapshot is made.
    type: str
    choices: [none, auto, lvm, btrfs]
    default: none
  snapshot_size:
    description:
      - Room for what is changed while a snapshot of a thick logical volume is there, as percent of that, or as a
        quantity such as V(20Gi). A volume group that has not as much free is as one that can make no snapshot.
      - A snapshot that becomes full cannot be read any more, and the copies from it are incomplete.
    type: str
    default: 10%
  retention:
    description:
      - Which older generations are kept. Without it none is ever removed.
      - Applied to volumes of the list that have just got a complete generation, and to no other. The newest good
        generation is always kept.
    type: dict
    suboptions:
      last:
        description:
          - The last so many.
        type: int
      daily:
        description:
          - The last one of each of so many days (UTC) that have one.
        type: int
      weekly:
        description:
          - The last one of each of so many weeks.
        type: int
      monthly:
        description:
          - The last one of each of so many months.
        type: int
      yearly:
        description:
          - The last one of each of so many years.
        type: int
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.volume_restore
  - module: clusterkit.storage.volume_backup_info
  - module: clusterkit.storage.volume_backup_verify
"""

EXAMPLES = r"""
- name: Back up two volumes to a disk of the file server
  clusterkit.storage.volume_backup:
    engine: rsync
    repository: /backup/volumes
    create: true
    volumes:
      - name: nfs-spv001
        namespace: default
        claim: data
        server_dir: /srv/nfs/spv_001
      - name: nfs-spv002
        namespace: default
        claim: logs
        server_dir: /srv/nfs/spv_002

- name: Back up to an object store, and keep a week of days and a year of months
  clusterkit.storage.volume_backup:
    repository: s3:https://s3.example.com/backup
    password_file: /etc/clusterkit/restic-password
    environment:
      AWS_ACCESS_KEY_ID: "{{ backup_key }}"
      AWS_SECRET_ACCESS_KEY: "{{ backup_secret }}"
    volumes: "{{ backup_volumes }}"
    parallel: 4
    bandwidth: 51200
    retention:
      daily: 7
      monthly: 12
"""

RETURN = r"""
volumes:
  description: What was done for each volume, in the order of the list.
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
    claim:
      description: Name of its claim.
      type: str
    server_dir:
      description: Its directory.
      type: str
    snapshot:
      description: "From what kind of snapshot it was copied: V(none), V(lvm) or V(btrfs)."
      type: str
    snapshot_reason:
      description: Why it was copied as it is, although O(snapshot=auto).
      type: str
    changed:
      description: Whether a generation was, or would be, made.
      type: bool
    failed:
      description: Whether something went wrong.
      type: bool
    generation:
      description: Name of the generation for rsync, id of the snapshot for restic; empty in check mode.
      type: str
    path:
      description: Folder of the generation; V(null) for restic.
      type: str
    complete:
      description: Whether everything that was there could be copied.
      type: bool
    files:
      description: Number of its files.
      type: int
    directories:
      description: Number of its directories.
      type: int
    bytes:
      description: Sum of the sizes of its files.
      type: int
    changed_files:
      description: Files whose content was stored anew.
      type: int
    copied_bytes:
      description: Bytes that were copied by rsync, or added to the repository by restic.
      type: int
    vanished:
      description: Files that vanished while they were to be copied.
      type: int
    seconds:
      description: How long it took.
      type: float
    removed:
      description: Generations that O(retention) removed, or would remove.
      type: list
      elements: str
    msg:
      description: What went wrong.
      type: str
created:
  description: Whether the repository was, or would be, made.
  returned: always, except when the list or the repository is refused
  type: bool
problems:
  description: Everything that is wrong, one element each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup,
    _backup_run,
    _backup_settings,
    _snapshots,
)

ARGUMENT_SPEC = {
    **_backup_settings.REPOSITORY_ARGUMENTS,
    **_backup_settings.COPY_ARGUMENTS,
    "volumes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            **_backup_settings.VOLUME_ARGUMENTS,
            "claim": {"type": "str", "default": ""},
            "server_dir": {"type": "str", "required": True},
            "objects": {"type": "dict", "default": {}},
        },
    },
    "create": {"type": "bool", "default": False},
    "checksum": {"type": "bool", "default": False},
    "snapshot": {"type": "str", "choices": list(_snapshots.KINDS), "default": _snapshots.NONE},
    "snapshot_size": {"type": "str", "default": "10%"},
    "retention": {"type": "dict", "options": {name: {"type": "int"} for name in _backup.KEEP}},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    settings = _backup_settings.of_arguments(module.params)
    volumes, problems = _backup.read_volumes(module.params["volumes"])
    retention = module.params["retention"]
    problems += settings.problems() + _backup.keep_problems(retention)
    problems += _backup.overlap_problems(volumes, settings.repository)
    _backup_run.carry_out(
        module,
        problems,
        lambda: _backup_run.back_up(
            volumes,
            settings,
            create=module.params["create"],
            retention=retention,
            check_mode=module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
