#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quarantine of directories of volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_dirs
short_description: Quarantine directories of volumes, bring them back, remove them after their time
version_added: 0.1.0
description:
  - The only module of this collection that moves or removes directories with data.
  - Removal takes two steps that are apart in time. V(quarantined) renames a directory into C(.clusterkit/trash), beside
    a manifest that says where it was, whose it was, and how its Kubernetes objects can be made again.
    V(purged) removes it for good after O(retention).
  - Each step names device and inode of the directory that it means. If something else is there by now, that step fails
    and nothing is touched; if somebody puts something else there at the last moment, it is put back.
  - A run can be ended anywhere, by a power cut too. The next one finishes or undoes what was half done.
  - C(.clusterkit) (root, 0700) is at the mount point of the file system if no export covers it, else at the root of the
    share. It holds C(share.json) (which clusters use the shares), C(lease.json), C(journal.jsonl) (what was done, by
    whom), C(intents/) and C(trash/).
  - Symbolic links are never followed and mount points never crossed, also not bind mounts of the same file system,
    and not if a client swaps a directory for a link meanwhile.
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - Everything is judged, nothing is written. What an earlier run has left half done is not finished.
  diff_mode:
    support: full
    details:
      - One line for each directory that is moved or removed.
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) makes C(.clusterkit) and notes O(clusters) as users of the shares. Nothing is quarantined in a share
        without that note.
      - V(intended) writes an intent with all objects of a volume. It comes before the PersistentVolume is deleted, so
        it is refused where a client of NFSv4 has something open, or nobody knows that.
      - V(quarantined) moves directories into quarantine, and closes their intents. A directory that belongs to a volume
        needs an intent; an orphan needs none.
      - V(restored) moves directories back to where they were, or to C(directory) of the step. An intent keeps the
        objects until V(closed).
      - V(purged) removes quarantined directories for good, and goes on with what an earlier run had begun to remove.
      - V(closed) removes intents whose objects are there, still or again.
    type: str
    choices: [present, intended, quarantined, restored, purged, closed]
    required: true
  shares:
    description:
      - The roots of the shares, as absolute paths of this host without symbolic links. Nothing outside of them is ever
        touched.
    type: list
    elements: str
    required: true
  clusters:
    description:
      - With O(state=present), uids of the clusters that use the shares (the uid of the namespace C(kube-system)).
        They are added to those that are noted.
    type: list
    elements: str
  cluster_uid:
    description:
      - The cluster whose volumes these are; with O(plan) the default is the plan's. Steps on shares that it does not
        use, and on quarantined directories of another cluster, are refused.
    type: str
  steps:
    description:
      - What is to be done. Exactly one of O(steps) and O(plan) is needed, except with O(state=present).
    type: list
    elements: dict
    suboptions:
      id:
        description: Id of the step, for the result.
        type: str
        default: ""
      share:
        description: The root of the share, one of O(shares).
        type: str
        required: true
      directory:
        description:
          - Absolute path of the directory, below the share, without C(..), C(.), empty parts and trailing slash.
          - Needed with V(intended) and V(quarantined). With V(restored), another place than the old one.
        type: str
      scope:
        description:
          - V(content) moves what is in the directory, and leaves the directory, its owner and mode. This is meant for
            a volume that is an export of its own; C(lost+found) and C(.clusterkit) stay.
        type: str
        choices: [directory, content]
        default: directory
      entry:
        description:
          - Name in the trash, as M(clusterkit.storage.volume_dirs_info) tells it. Needed with V(restored) and
            V(purged).
        type: str
      volume:
        description:
          - The PersistentVolume that the directory belongs to. Needed with V(intended), V(closed) and
            O(steps[].scope=content).
        type: dict
        suboptions:
          name:
            description: Name of the volume.
            type: str
            required: true
          uid:
            description: Uid of the volume.
            type: str
            required: true
      objects:
        description:
          - With V(intended), the whole objects C(volume), C(claim) and C(class). The latter two may be missing.
        type: dict
      precondition:
        description:
          - The directory that is meant. Needed with all states but V(closed); with V(restored) and V(purged) it is
            about what lies in quarantine.
        type: dict
        suboptions:
          device:
            description: Device number.
            type: int
            required: true
          inode:
            description: Inode.
            type: int
            required: true
      reason:
        description: Why; kept in the manifest.
        type: str
        default: ""
  plan:
    description:
      - A file that M(clusterkit.storage.storage_plan) wrote, on this host. Its steps for this module and O(state) are
        done. A plan that was edited is refused.
    type: path
  only:
    description:
      - Ids of the steps that are done, for example those whose object is gone. An empty list means none.
    type: list
    elements: str
  objects:
    description:
      - With O(state=intended), a file on this host with a line of JSON for each volume, an object with C(volume),
        C(claim) and C(class), in place of C(objects) of the steps.
    type: path
  keep:
    description:
      - Directories of other volumes. A step that would move or remove one of them, or a directory that holds one, is
        refused. C(keep) of a plan is added.
    type: list
    elements: str
    default: []
  by:
    description:
      - Who wants it, for manifests and journal.
    type: str
    default: ""
  lease_owner:
    description:
      - The process that works here, for a lease that is kept over several calls; see O(keep_lease). Default is this
        host and this call.
    type: dict
    suboptions:
      controller:
        description: The machine that the process runs on, for example the content of C(/etc/machine-id).
        type: str
        required: true
      boot_id:
        description: Content of C(/proc/sys/kernel/random/boot_id) there.
        type: str
        required: true
      pid:
        description: Id of the process.
        type: int
        required: true
  lease_dead_pids:
    description:
      - Ids of processes that are known to have ended on the machine of O(lease_owner). Leases of theirs are taken over,
        and so are those from before its last boot.
    type: list
    elements: int
    default: []
  keep_lease:
    description:
      - Whether the lease stays for another call by the same O(lease_owner). It expires after 15 minutes, is renewed
        before a step when it is older than 30 seconds, and is taken over by anybody then.
    type: bool
    default: false
  allow_break_lease:
    description:
      - Whether the lease of somebody else may be taken although it has not expired.
    type: bool
    default: false
  allow_unknown_open_state:
    description:
      - Whether directories may be moved and removed on a host that cannot know what NFSv4 clients have open, because
        its kernel does not serve NFS, is older than 5.3, or has just begun to serve (its grace period).
    type: bool
    default: false
  retention:
    description:
      - How long a directory stays in quarantine before it may be purged, such as V(14d) or V(36h), by the clock of this
        host against the manifest.
    type: str
    default: 14d
  allow_purge_now:
    description:
      - Whether O(retention) does not count, for example on a full disk.
    type: bool
    default: false
  controller_time:
    description:
      - The time by the clock of the controller, as seconds since 1970 or V(2026-03-01T12:00:00Z). It is noted in
        manifests; a directory is purged only if it is old enough by both clocks, then.
    type: str
  dest:
    description:
      - A file that gets RV(directories) as lines of JSON; the result then holds those only that are not V(unchanged).
      - With O(plan) the default is the name of the plan with C(.STATE.result.jsonl) behind it; nothing is written in
        check mode.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - Needs root.
  - Renaming does not cut off clients. Directories in which NFSv4 clients have something open are refused. What clients
    of NFSv3 have open cannot be known; a warning says so if the server speaks NFSv3.
  - A client that may write to the root of a share, and for which that has no sticky bit, can rename C(.clusterkit). It
    cannot look into it, and what it puts there instead is refused. Export a directory below the mount point of the
    file system to keep C(.clusterkit) out of sight.
seealso:
  - module: clusterkit.storage.volume_dirs_info
  - module: clusterkit.storage.storage_plan
"""

EXAMPLES = r"""
- name: Note which cluster uses a share
  clusterkit.storage.volume_dirs:
    state: present
    shares: [/srv/nfs/k8s]
    clusters: [6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11]

- name: Quarantine a directory that no volume uses any more
  clusterkit.storage.volume_dirs:
    state: quarantined
    shares: [/srv/nfs/k8s]
    cluster_uid: 6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11
    by: "{{ ansible_user_id }}"
    steps:
      - share: /srv/nfs/k8s
        directory: /srv/nfs/k8s/old
        precondition: {device: 64768, inode: 4711}
        reason: nobody knows it

- name: Quarantine what an approved plan says, for the volumes that are gone
  clusterkit.storage.volume_dirs:
    state: quarantined
    shares: [/srv/nfs/k8s]
    plan: /var/tmp/cleanup-plan.json
    only: ["00003", "00007"]

- name: Bring it back
  clusterkit.storage.volume_dirs:
    state: restored
    shares: [/srv/nfs/k8s]
    steps:
      - share: /srv/nfs/k8s
        entry: 20260301T120000Z-old-inode4711
        precondition: {device: 64768, inode: 4711}

- name: Remove for good what is in quarantine for a month
  clusterkit.storage.volume_dirs:
    state: purged
    shares: [/srv/nfs/k8s]
    plan: /var/tmp/purge-plan.json
    retention: 30d
"""

RETURN = r"""
directories:
  description:
    - Each step in the order of the plan, also when some of them failed. A purge that an earlier run had begun comes at
      the end, with an empty C(id).
  returned: always, once the arguments were checked
  type: list
  elements: dict
  contains:
    id: {description: Id of the step., type: str}
    item: {description: "Name of the volume, else directory or entry.", type: str, sample: pvc-0e2c}
    share: {description: The root of the share., type: str, sample: /srv/nfs/k8s}
    directory: {description: The directory., type: str}
    entry: {description: Name in the trash., type: str}
    state:
      description:
        - V(changed), V(unchanged), V(refused), V(stale) (not the directory that was planned), V(gone) (not there),
          V(failed) or V(not_started).
      type: str
    changed: {description: Whether anything was moved or removed., type: bool}
    reason: {description: "Why, if it is not V(changed).", type: str}
summary:
  description: How many steps ended in each state.
  returned: always, once the arguments were checked
  type: dict
  sample: {changed: 1, unchanged: 0, refused: 0, stale: 0, gone: 0, failed: 0, not_started: 0}
recovered:
  description: What an earlier run had left half done.
  returned: always, once the arguments were checked
  type: list
  elements: dict
  contains:
    base: {description: "Where C(.clusterkit) is.", type: str}
    entry: {description: Name in the trash., type: str}
    action: {description: What was done with it., type: str}
plan_id:
  description: Id of the plan.
  returned: with O(plan)
  type: str
dest:
  description: The file with all RV(directories).
  returned: when one was written
  type: str
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _volume_dirs, _volume_dirs_run
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places


def main() -> None:
    module = AnsibleModule(
        argument_spec=_volume_dirs.ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("steps", "plan")],
        required_if=[("state", "present", ["clusters"])],
    )
    given = module.params
    try:
        request = _volume_dirs.read_request(given, check_mode=module.check_mode)
        done = _volume_dirs_run.run(request, Places())
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    for warning in done.warnings:
        module.warn(warning)
    result = {
        "changed": done.changed,
        "directories": done.items,
        "summary": done.summary(),
        "recovered": done.recovered,
        "diff": done.diff,
    }
    if done.plan_id:
        result["plan_id"] = done.plan_id
    dest = given["dest"] or (f"{given['plan']}.{given['state']}.result.jsonl" if given["plan"] else None)
    if dest and not module.check_mode:
        try:
            replace_lines(dest, (json.dumps(item, sort_keys=True) for item in done.items))
            result["dest"] = dest
            result["directories"] = [item for item in done.items if item["state"] != "unchanged"]
        except OSError as error:
            module.warn(f"{dest} could not be written: {error.strerror}")
    if done.problem:
        module.fail_json(msg=done.problem, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
