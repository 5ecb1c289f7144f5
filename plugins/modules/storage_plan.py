#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of what is to be done with volumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_plan
short_description: Decide what is to be done with volumes, as a plan that can be read, approved and run later
version_added: 0.1.0
description:
  - Judges the volumes of a file that M(clusterkit.storage.pv_info) wrote with C(plan_for), and writes a plan.
    Talks to no API and no server; the same input gives the same plan.
  - For V(backup) and V(restore) it finds the host and directory of each volume, the objects that belong to it, and who
    has to be stopped meanwhile. These plans hold whole objects.
  - For V(cleanup), V(undelete) and V(purge) it judges the directories of files that
    M(clusterkit.storage.volume_dirs_info) wrote, against the volumes of all clusters that use their shares.
  - For V(recover) it judges what nodes tell of their mounts, and the pods of a file that M(clusterkit.storage.pod_info)
    wrote.
  - Each step names the version of the objects, the directory or the mount that it was decided on. Whoever runs the
    plan (M(clusterkit.storage.pv_reclaim), M(clusterkit.storage.pvc_expand), M(clusterkit.storage.pv_cleanup),
    M(clusterkit.storage.volume_dirs), M(clusterkit.storage.nfs_recover), M(clusterkit.storage.pod_recover),
    M(clusterkit.storage.pv_restore)) leaves alone what has changed since.
  - The id of a plan is a hash of its content; a plan that was edited is refused.
extends_documentation_fragment:
  - clusterkit.storage.attributes
attributes:
  check_mode:
    support: full
    details:
      - The plan is made and returned, the file is not written.
  diff_mode:
    support: none
    details:
      - A plan is what a diff would show.
  idempotent:
    support: full
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
options:
  action:
    description:
      - What the plan is for.
    type: str
    choices: [reclaim, expand, recover, backup, restore, cleanup, undelete, purge]
    required: true
  listing:
    description:
      - The file that M(clusterkit.storage.pv_info) wrote; for V(recover), M(clusterkit.storage.pod_info). Exactly one
        of O(listing) and O(plan) is needed.
      - For V(reclaim) it must be of a selection, which the plan then covers wholly; for V(backup), too, if O(backup)
        says nothing of claims; for V(expand), V(restore), V(cleanup), V(undelete) and V(purge) of all volumes, for the
        last three with C(plan_for=cleanup).
    type: path
  plan:
    description:
      - A plan that is there already, to be checked and shown.
    type: path
  reclaim:
    description: For V(reclaim), what is wanted; see M(clusterkit.storage.pv_reclaim).
    type: dict
    suboptions:
      policy:
        description: Reclaim policy; V(Previous) is the one that was kept.
        type: str
        choices: [Retain, Delete, Recycle, Previous]
      keep_previous:
        description: Whether the policy that gives way to V(Retain) is kept in an annotation.
        type: bool
        default: false
      release:
        description: Whether volumes are opened for any claim, or reserved for their old one.
        type: str
        choices: [open, reserved]
      labels:
        description: Labels; null removes one.
        type: dict
        default: {}
      annotations:
        description: Annotations; null removes one.
        type: dict
        default: {}
      time_annotation:
        description: Annotation for the time of a change.
        type: str
      allow_future_deletion:
        description: Whether data may go with a later claim.
        type: bool
        default: false
      protected_namespaces:
        description: Namespaces that are protected besides those with the label.
        type: list
        elements: str
        default: []
      content:
        description:
          - What becomes of the content of volumes that are opened for any claim. With V(quarantine) it goes into
            quarantine first (M(clusterkit.storage.volume_dirs)), and the directory stays; a volume is refused whose
            content cannot. This is what the policy V(Recycle) is used for, without its loss of data.
          - V(quarantine) needs O(reclaim.release=open), O(reclaim.volumes), O(reclaim.directories) and
            O(reclaim.storage_servers).
        type: str
        choices: [keep, quarantine]
        default: keep
      volumes:
        description: A file of M(clusterkit.storage.pv_info) of all volumes, made with C(plan_for=cleanup).
        type: path
      directories:
        description: Files of M(clusterkit.storage.volume_dirs_info).
        type: list
        elements: dict
        default: []
        suboptions: &files
          host:
            description: Host of the inventory that it is of.
            type: str
            required: true
          path:
            description: The file.
            type: path
            required: true
      storage_servers:
        description: Which host holds which shares, and under which addresses and paths clients see them.
        type: list
        elements: dict
        default: []
  expand:
    description: For V(expand), what is wanted; see M(clusterkit.storage.pvc_expand).
    type: dict
    suboptions:
      claims:
        description: The claims.
        type: list
        elements: dict
        suboptions:
          namespace:
            description: Namespace.
            type: str
            required: true
          name:
            description: Name.
            type: str
            required: true
          size:
            description: Size of this claim.
            type: str
      selection:
        description: Which claims are meant.
        type: dict
        suboptions:
          namespaces:
            description: Namespaces, or patterns.
            type: list
            elements: str
          names:
            description: Names, or patterns.
            type: list
            elements: str
          labels:
            description: Labels with their values.
            type: dict
          storage_classes:
            description: Names of StorageClasses.
            type: list
            elements: str
      size:
        description: The new size, absolute or relative.
        type: str
      allow_delete_policy:
        description: Whether a volume may grow whose policy is not V(Retain).
        type: bool
        default: false
  recover:
    description: For V(recover), what the nodes told, and what is allowed.
    type: dict
    suboptions:
      nodes:
        description:
          - "A file with a line of JSON for each host: its C(name) in the inventory, its C(address), the C(problem) if
            it did not answer, and C(mounts), C(servers) and C(automounts) as M(clusterkit.storage.nfs_mounts_info)
            tells them, and what it mounts for itself (C(wanted), as M(clusterkit.storage.nfs_mounts) takes it)."
        type: path
        required: true
      allow_restart_pods:
        description: Whether running pods with a stale handle are deleted so that their owner makes them again.
        type: bool
        default: false
      allow_abort_shared_io:
        description:
          - Whether the requests of a superblock are aborted although pods share it that are not Terminating. These get
            EIO as well; the plan names them.
        type: bool
        default: false
      allow_force_delete:
        description:
          - Whether Terminating pods are removed from the API of which their node confirms that no mount and no process
            is left.
        type: bool
        default: false
      protected_namespaces:
        description: Namespaces that are protected besides those with the label.
        type: list
        elements: str
        default: []
  backup:
    description: For V(backup), what is wanted.
    type: dict
    suboptions:
      storage_servers:
        description: Which host holds which shares, as M(clusterkit.storage.pv_info) takes it.
        type: list
        elements: dict
        default: []
      claims:
        description: Only volumes of these claims, as V(namespace/name), or patterns.
        type: list
        elements: str
        default: []
      claim_labels:
        description: Only volumes of claims with these labels.
        type: dict
        default: {}
      scale:
        description:
          - Whether Deployments and StatefulSets whose pods mount a volume are stopped meanwhile. A volume that other
            pods mount is refused then.
        type: bool
        default: false
      commands:
        description:
          - Commands that are run in a pod before volumes are copied, and after it. A volume gets the first entry that
            fits its claim, and only if a pod runs that may write to it; with O(backup.scale) none does.
        type: list
        elements: dict
        default: []
        suboptions:
          claim:
            description: Claim as V(namespace/name), or a pattern.
            type: str
            required: true
          container:
            description: Name of the container. By default the first one of the pod that may write to the claim.
            type: str
          before:
            description: Command before, as a list of words. No shell reads them.
            type: list
            elements: str
            default: []
          after:
            description: Command after, as a list of words.
            type: list
            elements: str
            default: []
          timeout:
            description: Seconds that each of them may take.
            type: int
            default: 60
  restore:
    description:
      - For V(restore), what is wanted.
      - One of O(restore.volumes), O(restore.claims) and O(restore.namespaces) is needed.
    type: dict
    suboptions:
      backups:
        description:
          - "A file of JSON, a list with an entry for each host: its name in the inventory (C(host)), the
            C(generations) of its repository as M(clusterkit.storage.volume_backup_info) tells them, with objects, and
            the C(problem) if it did not tell."
        type: path
        required: true
      volumes:
        description: What is restored, and where to.
        type: list
        elements: dict
        default: []
        suboptions:
          namespace:
            description: Namespace that the claim had; empty for a volume without one.
            type: str
            required: true
          claim:
            description: Name that the claim had. Of a claim that has had several volumes, the newest is meant.
            type: str
          name:
            description: Name that the volume had.
            type: str
          generation:
            description: V(latest) for the newest good one, or a generation, or the beginning of one.
            type: str
            default: latest
          paths:
            description: Single files and directories to restore, relative to the root of the volume.
            type: list
            elements: str
            default: []
          to_namespace:
            description: Namespace of the claim into which it is restored. By default the old one.
            type: str
          to_claim:
            description: Its name. By default the old one. Another claim than the old one is made, with a new volume.
            type: str
          to_name:
            description: Name of the new volume; by default V(restored-NAMESPACE-CLAIM).
            type: str
          to_server:
            description: Entry of O(restore.storage_servers) on which the new volume lies; by default the old one.
            type: str
          to_path:
            description:
              - Its path, as clients see it; by default beside the old directory, with the name of the volume. The
                directory above must be there.
            type: str
      claims:
        description: Claims as V(namespace/name), each into itself.
        type: list
        elements: str
        default: []
      namespaces:
        description: All claims of these namespaces that have a backup, each into itself.
        type: list
        elements: str
        default: []
      storage_servers:
        description: Which host holds which shares, as M(clusterkit.storage.pv_info) takes it.
        type: list
        elements: dict
        default: []
      scale:
        description:
          - Whether Deployments and StatefulSets whose pods mount a claim are stopped meanwhile. Otherwise a claim that
            is mounted is refused.
        type: bool
        default: false
      policy:
        description: The reclaim policy at the end, V(recorded) or V(Retain). New volumes always have V(Retain).
        type: str
        choices: [recorded, Retain]
        default: recorded
  cleanup:
    description:
      - For V(cleanup), what is meant, and what the servers told. Volumes are planned that are Released or Failed for
        long enough; whatever else uses their directory, or may, is named as the reason why one is not.
      - Without C(directories) no plan is made, and only RV(parents) is told.
    type: dict
    suboptions:
      directories:
        description: Files of M(clusterkit.storage.volume_dirs_info), listed before the API was asked.
        type: list
        elements: dict
        default: []
        suboptions: *files
      sizes:
        description: Such files with the sizes of what is planned.
        type: list
        elements: dict
        default: []
        suboptions: *files
      other_listings:
        description: Files of M(clusterkit.storage.pv_info) of the other clusters that use the shares.
        type: list
        elements: path
        default: []
      mounts:
        description:
          - "A file with a line of JSON for each host that may mount the shares: its C(name), the C(problem) if it did
            not answer, and C(sources), what it mounts, as SERVER:PATH. Without it nothing is an orphan."
        type: path
      storage_servers:
        description: Which host holds which shares, and under which addresses and paths clients see them.
        type: list
        elements: dict
        required: true
      method:
        description:
          - V(quarantine), or V(provisioner) to let the provisioner of a volume remove it with its directory. The latter
            is refused where that would take anything else.
        type: str
        choices: [quarantine, provisioner]
        default: quarantine
      names:
        description: Names of volumes, or patterns; all if it is empty. With orphans and archives, of directories.
        type: list
        elements: str
        default: []
      namespaces:
        description: Namespaces of claims, or patterns; all if it is empty.
        type: list
        elements: str
        default: []
      storage_classes:
        description: StorageClasses, or patterns; all if it is empty.
        type: list
        elements: str
        default: []
      released_for:
        description: For how long a volume must have been Released or Failed, and other directories unchanged.
        type: str
        default: 7d
      exclude:
        description: Names or paths of directories, or names of volumes, or patterns, that are never touched.
        type: list
        elements: str
        default: []
      exclude_namespaces:
        description: Namespaces of claims, or patterns, whose volumes are left alone.
        type: list
        elements: str
        default: []
      exclude_storage_classes:
        description: StorageClasses, or patterns, whose volumes are left alone.
        type: list
        elements: str
        default: []
      orphans:
        description: Whether directories are meant, too, that nobody uses.
        type: bool
        default: false
      archives:
        description: Whether directories are meant, too, that a provisioner kept of a volume that it deleted.
        type: bool
        default: false
      missing:
        description:
          - Whether volumes are meant, too, whose directory is not there. Only their object is removed.
          - A share that was not listed to its end, or may not be mounted, proves nothing, nor does one in which a link
            or a directory of that name lies elsewhere; see the guide on quarantine.
        type: bool
        default: false
      max_bytes:
        description: At most so much, such as V(500Gi). If it would be more, or is not known, the module fails.
        type: str
      foreign_servers:
        description: Servers in volumes, pods and mounts that are certainly none of O(cleanup.storage_servers).
        type: list
        elements: str
        default: []
      allow_mounted_above:
        description:
          - Whether directories may be orphans although a pod or host mounts the whole share without a volume, and may
            use any of them.
        type: bool
        default: false
      protected_namespaces:
        description: Namespaces that are protected besides those with the label.
        type: list
        elements: str
        default: []
  undelete:
    description: For V(undelete), what comes back.
    type: dict
    suboptions:
      directories:
        description: Files of M(clusterkit.storage.volume_dirs_info), made with C(objects).
        type: list
        elements: dict
        required: true
        suboptions: *files
      storage_servers:
        description: Which host holds which shares.
        type: list
        elements: dict
        required: true
      names:
        description: Names of volumes, paths of directories, or entries in the trash; patterns, too.
        type: list
        elements: str
        required: true
      to_claim:
        description: The claim that gets the volume, as NAMESPACE/NAME; default is its old one.
        type: str
      make_claim:
        description: Whether the claim is made as well if it is not there.
        type: bool
        default: false
  purge:
    description: For V(purge), what is removed for good.
    type: dict
    suboptions:
      directories:
        description: Files of M(clusterkit.storage.volume_dirs_info), made with C(objects).
        type: list
        elements: dict
        required: true
        suboptions: *files
      storage_servers:
        description: Which host holds which shares.
        type: list
        elements: dict
        required: true
      retention:
        description: For how long it must have been in quarantine.
        type: str
        default: 14d
      names:
        description: Names of volumes, paths of directories, or entries in the trash; patterns, too. All if it is empty.
        type: list
        elements: str
        default: []
      allow_now:
        description: Whether O(purge.retention) does not count; needs O(purge.names).
        type: bool
        default: false
      max_bytes:
        description:
          - At most so much, such as V(500Gi), the oldest first. What would go beyond it waits, and so does all that is
            younger; so does what was not measured to its end. The files must be made with C(quarantined_size).
          - What an earlier run has begun to remove goes first and counts, whatever its size.
        type: str
      protected_namespaces:
        description: Namespaces that are protected besides those with the label.
        type: list
        elements: str
        default: []
  report:
    description:
      - For V(cleanup), a file for what each directory is, as lines of JSON with C(host), C(path), C(class), C(volume)
        and C(reason).
    type: path
  max_changes:
    description:
      - At most so many steps, as a count or as percent of all volumes of the cluster, rounded up. If there would be
        more, the module fails and writes nothing. For V(recover) a count only.
    type: str
  host:
    description:
      - Host of the inventory on which the plan is going to be run. For V(recover), V(backup) and V(restore)
        each step has a host of its own.
    type: str
    default: localhost
  dest:
    description:
      - The file for the plan. It is replaced in one step and has mode 0600.
    type: path
author:
  - The clusterkit.storage authors (@clusterkit)
seealso:
  - module: clusterkit.storage.pv_info
  - module: clusterkit.storage.pv_reclaim
  - module: clusterkit.storage.pvc_expand
  - module: clusterkit.storage.pod_info
  - module: clusterkit.storage.nfs_recover
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.volume_restore
  - module: clusterkit.storage.pv_cleanup
  - module: clusterkit.storage.volume_dirs
"""

EXAMPLES = r"""
- name: List what was left behind
  clusterkit.storage.pv_info:
    selection:
      phases: [Released]
      released_for: 30d
    plan_for: reclaim
    dest: /var/tmp/released.jsonl

- name: Plan to give it free
  clusterkit.storage.storage_plan:
    action: reclaim
    listing: /var/tmp/released.jsonl
    reclaim:
      policy: Retain
      release: reserved
    max_changes: 10%
    dest: /var/tmp/reclaim-plan.json
  register: planned

- name: Show it
  ansible.builtin.debug:
    msg: "{{ planned.table }}"
"""

RETURN = r"""
id:
  description: The id of the plan.
  returned: success
  type: str
  sample: 3f8a1c0e9d2b4a77
table:
  description: The plan for a person, line by line. Long plans are cut here.
  returned: success
  type: list
  elements: str
  sample:
    - "plan 3f8a1c0e9d2b4a77 (reclaim): 1 to change, 0 as wanted, 0 refused"
    - "item      now                          then                                     why"
    - "pvc-0e2c  Released, Retain, shop/data  Available, Retain, reserved for shop/data  ..."
steps:
  description: Number of steps.
  returned: success
  type: int
  sample: 1
unchanged:
  description: Number of items that are as wanted.
  returned: success
  type: int
  sample: 0
refusals:
  description: What is not going to be done, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - {item: pvc-77aa, reason: "is Bound to shop/data: a volume in use is never released; delete the claim first"}
ids:
  description: "For V(cleanup), V(undelete) and V(purge): by host and state the ids of the steps on directories."
  returned: success
  type: dict
  sample: {nfs1: {quarantined: ["00001", "00003"]}}
measure:
  description: For V(cleanup), by host, the directories that are planned.
  returned: success
  type: dict
  sample: {nfs1: [/srv/nfs/k8s/shop-data-pvc-0e2c]}
parents:
  description:
    - For V(cleanup) without C(directories), by host, the directories below the roots of shares in which volumes lie.
  returned: success
  type: dict
  sample: {nfs1: [/srv/nfs/k8s/team-a]}
dest:
  description: The file with the plan.
  returned: with O(dest), or O(plan)
  type: str
"""

import gc
import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup_plan,
    _cleanup,
    _expand,
    _plan,
    _planner,
    _reclaim,
    _reclaim_content,
    _recover,
    _restore_plan,
    _trash_plan,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._files import read_text, replace_file, replace_lines

ARGUMENTS = {
    "action": {"type": "str", "choices": [*_plan.ACTIONS], "required": True},
    "listing": {"type": "path"},
    "plan": {"type": "path"},
    "reclaim": {"type": "dict", "options": {**_reclaim.ARGUMENTS, **_reclaim_content.ARGUMENTS}},
    "expand": {"type": "dict", "options": _expand.ARGUMENTS, "mutually_exclusive": [("claims", "selection")]},
    "recover": {"type": "dict", "options": _recover.ARGUMENTS},
    "backup": {"type": "dict", "options": _backup_plan.ARGUMENTS},
    "restore": {"type": "dict", "options": _restore_plan.ARGUMENTS},
    "cleanup": {"type": "dict", "options": _cleanup.ARGUMENTS},
    "undelete": {"type": "dict", "options": _trash_plan.UNDELETE},
    "purge": {"type": "dict", "options": _trash_plan.PURGE},
    "report": {"type": "path"},
    "max_changes": {"type": "str"},
    "host": {"type": "str", "default": "localhost"},
    "dest": {"type": "path"},
}


def main() -> None:
    # Nothing here lives in circles, and with 100,000 records the collector would take a fifth of the time.
    gc.disable()
    module = AnsibleModule(
        ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[
            ("listing", "plan"),
            ("plan", "dest"),
            ("plan", *_plan.ACTIONS),
        ],
        required_one_of=[("listing", "plan")],
    )
    given = module.params
    changed = False
    try:
        if given["action"] == "cleanup" and given["cleanup"] and not given["cleanup"]["directories"]:
            module.exit_json(changed=False, parents=_planner.parents(given))
        planned = _planner.plan(given)
        plan = planned.plan
        if given["report"] and not module.check_mode:
            lines = (json.dumps(one, sort_keys=True) for one in planned.report)
            replace_lines(given["report"], lines)
        text = _plan.write(plan)
        if given["dest"] and read_text(given["dest"]) != text:
            changed = True
            if not module.check_mode:
                replace_file(given["dest"], text, mode=0o600)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        id=plan["id"],
        table=_plan.table(plan),
        steps=len(plan["steps"]),
        unchanged=plan["unchanged"],
        refusals=plan["refusals"],
        dest=given["dest"] or given["plan"],
        ids=_plan.ids(plan),
        measure=planned.measure,
    )


if __name__ == "__main__":
    main()
