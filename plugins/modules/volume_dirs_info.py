#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of shares."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_dirs_info
short_description: List the directories of shares, what is in quarantine there, and what is about to be
version_added: 0.1.0
description:
  - Lists the directories at the top of shares, and below the parents that are named, with all that has to be known
    before one of them may be removed.
  - Opens no file. Symbolic links are not followed and mount points not crossed, bind mounts included.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.info
  - clusterkit.storage.attributes.host
options:
  shares:
    description:
      - The roots of the shares, as absolute paths of this host without symbolic links.
    type: list
    elements: str
    required: true
  parents:
    description:
      - Directories below the shares whose directories are listed, too, for example those that a nested
        C(pathPattern) makes. One that is not there is no error.
    type: list
    elements: str
    default: []
  size:
    description:
      - Whether to measure the directories, several at a time, as C(du) does it.
    type: bool
    default: false
  quarantined_size:
    description:
      - Whether to measure what is in quarantine, the oldest first.
    type: bool
    default: false
  open_state:
    description:
      - Whether to find out which NFSv4 clients have something open in the directories of O(only_for).
      - nfsd names files by inode, so all of these directories are walked if anybody has anything open.
    type: bool
    default: false
  only_for:
    description:
      - Listed directories that O(size) and O(open_state) are wanted for. Without it O(size) is for all.
    type: list
    elements: str
  timeout:
    description:
      - Seconds that measuring may take in all. What is not done by then has
        RV(directories[].size_complete) or RV(quarantined[].size_complete) V(false).
    type: int
    default: 300
  objects:
    description:
      - Whether RV(quarantined) holds the Kubernetes objects of the volumes, too.
    type: bool
    default: false
  dest:
    description:
      - A file, on this host, that gets the records as lines of JSON instead of the result. The first line tells of the
        shares; each other one has a C(kind), V(Directory), V(Intent) or V(Quarantined).
      - The file is replaced in one step and has mode 0600, in check mode too.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - Needs root, as quarantined directories are seen by nobody else.
  - What clients of NFSv3 have open cannot be known. Where the kernel of this host does not serve NFS, or is older than
    5.3, what clients of NFSv4 have open is not known either; RV(open_state) says so.
seealso:
  - module: clusterkit.storage.volume_dirs
  - module: clusterkit.storage.pv_info
"""

EXAMPLES = r"""
- name: What lies on a share
  clusterkit.storage.volume_dirs_info:
    shares: [/srv/nfs/k8s]
  register: found

- name: What is in quarantine
  ansible.builtin.debug:
    msg: "{{ found.quarantined | map(attribute='entry') }}"

- name: All directories of two shares, and those of a nested path pattern, into a file
  clusterkit.storage.volume_dirs_info:
    shares: [/srv/nfs/k8s, /srv/nfs/data]
    parents: [/srv/nfs/k8s/team-a]
    dest: /var/tmp/directories.jsonl

- name: How large two directories are, and who uses them
  clusterkit.storage.volume_dirs_info:
    shares: [/srv/nfs/k8s]
    size: true
    open_state: true
    only_for: [/srv/nfs/k8s/shop-data-pvc-0e2c, /srv/nfs/k8s/old]
"""

RETURN = r"""
shares:
  description: The shares, in the order of O(shares).
  returned: success
  type: list
  elements: dict
  contains:
    path: {description: The root of the share., type: str, sample: /srv/nfs/k8s}
    base: {description: "Where C(.clusterkit) is, or would be made.", type: str, sample: /srv}
    key: {description: The share in the files that lie there., type: str, sample: nfs/k8s}
    clusters: {description: Uids of the clusters that use it., type: list, elements: str}
    device: {description: Device of the root., type: int, sample: 64768}
    inode: {description: Inode of the root., type: int, sample: 128}
    others: {description: Number of files and links at the top., type: int, sample: 0}
    other_paths:
      description: Paths of files and links at the top and in O(parents), the first 1000 of them.
      type: list
      elements: str
    other_paths_complete:
      description: Whether RV(shares[].other_paths) names all of them.
      type: bool
      sample: true
    lease:
      description: "Who works there now: C(owner) with C(controller), C(boot_id), C(pid); C(expires_at)."
      type: dict
directories:
  description: The directories; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    share: {description: The root of its share., type: str, sample: /srv/nfs/k8s}
    path: {description: Absolute path. Bytes that are not UTF-8 are lone surrogates., type: str, sample: /srv/nfs/k8s/a}
    device: {description: Device number., type: int, sample: 64768}
    inode: {description: Inode., type: int, sample: 4711}
    uid: {description: Number of the owner., type: int, sample: 1000}
    gid: {description: Number of the group., type: int, sample: 1000}
    owner: {description: Name of the owner; its number if it has no name., type: str, sample: "1000"}
    group: {description: Name of the group; its number if it has no name., type: str, sample: users}
    mode: {description: Mode as an octal string., type: str, sample: "0777"}
    mtime: {description: Last change of what is in it; seconds since 1970. Can be forged., type: float}
    ctime: {description: Last change of the directory itself. Cannot be forged., type: float}
    birthtime: {description: When it was made; null where the file system does not tell., type: float}
    mount_point: {description: Whether something is mounted there., type: bool, sample: false}
    size: {description: Bytes that it takes; with O(size)., type: int, sample: 4096}
    files: {description: Number of files; with O(size)., type: int, sample: 0}
    size_complete: {description: Whether all of it was measured; with O(size)., type: bool, sample: true}
    open_by: {description: Clients that have something open in it; with O(open_state)., type: list, elements: str}
intents:
  description: Open intents; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    share: {description: The root of its share., type: str}
    directory: {description: The directory., type: str}
    volume: {description: C(name) and C(uid) of the volume., type: dict}
    restored:
      description: V(false), the directory is about to be quarantined; V(true), it is back, and the objects may not be.
      type: bool
    objects: {description: "C(volume), C(claim) and C(class).", type: dict}
    at: {description: Since when., type: str, sample: "2026-03-01T12:00:00Z"}
    by: {description: By whom., type: str}
    plan: {description: Id of the plan., type: str}
    reason: {description: Why., type: str}
    scope: {description: "V(directory) or V(content).", type: str}
    cluster_uid: {description: The cluster., type: str}
    device: {description: Device number., type: int}
    inode: {description: Inode., type: int}
quarantined:
  description: What is in quarantine; empty with O(dest).
  returned: success
  type: list
  elements: dict
  contains:
    share: {description: The root of its share., type: str}
    entry: {description: Name in the trash., type: str, sample: 20260301T120000Z-pvc-0e2c-0e2c}
    state:
      description: "V(quarantined); V(restoring) or V(purging) if a run was ended in the middle of it."
      type: str
    directory: {description: Where it was., type: str}
    quarantined_at: {description: Since when., type: str, sample: "2026-03-01T12:00:00Z"}
    volume: {description: C(name) and C(uid) of its volume; null if it had none., type: dict}
    objects: {description: "C(volume), C(claim) and C(class); with O(objects).", type: dict}
    at: {description: When it was intended., type: str}
    by: {description: By whom., type: str}
    plan: {description: Id of the plan., type: str}
    reason: {description: Why., type: str}
    scope: {description: "V(directory) or V(content).", type: str}
    cluster_uid: {description: The cluster., type: str}
    device: {description: Device number; null if there is no data., type: int}
    inode: {description: Inode; null if there is no data., type: int}
    size: {description: Bytes that it takes; with O(quarantined_size)., type: int, sample: 4096}
    files: {description: Number of files; with O(quarantined_size)., type: int, sample: 0}
    size_complete:
      description: Whether all of it was measured; with O(quarantined_size).
      type: bool
      sample: true
counts:
  description: How many C(directories), C(intents) and C(quarantined) there are.
  returned: success
  type: dict
  sample: {directories: 120, intents: 0, quarantined: 3}
complete:
  description: Whether everything that was asked for could be read.
  returned: success
  type: bool
problems:
  description: What could not be read, and why.
  returned: success
  type: list
  elements: str
open_state:
  description: "With O(open_state), whether it is C(known), and whether the server speaks C(nfsv3), too."
  returned: success
  type: dict
listed_at:
  description: When the list was made, by the clock of this host.
  returned: success
  type: str
  sample: "2026-03-01T12:00:00Z"
dest:
  description: The file with the records.
  returned: with O(dest)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _volume_dirs_info
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places


def main() -> None:
    module = AnsibleModule(argument_spec=_volume_dirs_info.ARGUMENTS, supports_check_mode=True)
    try:
        listing = _volume_dirs_info.read(module.params, Places())
        result = _volume_dirs_info.result(listing, module.params["dest"])
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
