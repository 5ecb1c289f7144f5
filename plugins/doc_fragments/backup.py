# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules for backups of volumes have in common: where backups are, and how gently they are made."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - restic >= 0.14.0 for O(engine=restic), with unshare(1) and mount(8) of util-linux
  - rsync >= 3.1.3 for O(engine=rsync)
options:
  engine:
    description:
      - V(restic) makes snapshots in a repository that is encrypted and deduplicated.
      - V(rsync) makes plain trees, one for each generation. What did not change is a hard link to the generation
        before.
    type: str
    choices: [restic, rsync]
    default: restic
  repository:
    description:
      - For V(restic) a local path, C(sftp:user@host:/path), C(s3:https://host/bucket) or C(rest:https://host/).
        User and password in an address are shown to nobody.
      - For V(rsync) the absolute path of a folder on this host.
    type: str
    required: true
  password:
    description:
      - Password of the restic repository. It reaches restic by an open descriptor, and stands in no file, argument or
        environment.
      - One of O(password), O(password_file) and O(password_command) is needed for restic, none for rsync.
    type: str
  password_file:
    description:
      - File on this host with the password of the restic repository.
    type: path
  password_command:
    description:
      - Command on this host that prints the password of the restic repository.
    type: str
  environment:
    description:
      - Variables that restic needs for the repository, such as C(AWS_ACCESS_KEY_ID) and C(AWS_SECRET_ACCESS_KEY).
    type: dict
    default: {}
  backend_options:
    description:
      - Extended options of restic (C(-o)), such as V(sftp.command=ssh -p 2222 backup@nas -s sftp).
    type: list
    elements: str
    default: []
"""

    COPY = r"""
options:
  parallel:
    description:
      - How many volumes are worked on at the same time.
    type: int
    default: 2
  bandwidth:
    description:
      - KiB per second that all of them together may use; V(0) is no limit.
    type: int
    default: 0
  nice:
    description:
      - How far the copying programs stand back for a processor, from V(0) to V(19) (nice(1)).
    type: int
    default: 10
  ionice:
    description:
      - How they stand back for a disk (ionice(1)). V(best-effort) is the lowest level of the usual class, V(idle)
        waits until nobody else wants the disk.
    type: str
    choices: [none, best-effort, idle]
    default: best-effort
  progress_file:
    description:
      - File on this host to which lines about long copies are appended while the task runs, with files, bytes, rate
        and an estimate of what is left. C(tail -f) shows them.
      - An empty string writes none.
    type: path
    default: /run/clusterkit.storage/backup.log
  progress_interval:
    description:
      - Seconds between two lines about the same volume.
    type: int
    default: 10
"""
