#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mounts
short_description: Manage the NFS mounts of a host, live and in fstab
version_added: 0.1.0
author:
  - The clusterkit.storage authors (@clusterkit)
description:
  - Takes the whole list of a host's NFS mounts and brings the live mounts and C(/etc/fstab) to it.
  - The live table (C(/proc/self/mountinfo)) decides, not fstab. Another source, other options, or something that was
    mounted over the path is noticed. Options are compared as the kernel means them, so V(vers=4) is satisfied by
    a live 4.2, and a negotiated C(rsize) by a smaller one. Options that are not given count with the kernel's
    default or with what nfsmount.conf says. The same server under another name or address is reported and left mounted.
  - What a remount can change (such as V(ro)) is remounted. For anything else the new mount is tried first, in a
    namespace of its own; only if it works the old one is unmounted, and only if it is not busy, unless
    O(mounts[].unmount) says otherwise. A mount with a stale file handle is made anew in the same way.
  - Only NFS, and the automount triggers of fstab's NFS lines, are ever unmounted. Something else at the path, or over
    it, makes the item fail.
  - A line of fstab whose fifth or sixth field is no number, which systemd uses and C(mount) ignores, gets V(0) there.
  - Mounts are made side by side. No path on a server that does not answer is touched, every command has a deadline. A
    server that does not answer the NULL call of NFS within O(timeout), at most 5 seconds, is not waited for again.
  - When nobody waits for the result any more, as after the end of a play that was killed, nothing further is done.
  - Everything that is wrong with the input is reported at once, before anything is changed. When some items fail,
    the others are done all the same, and the result tells about each.
options:
  mounts:
    description:
      - The mounts. Paths that are not named are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The mount point, an absolute path.
        type: str
        required: true
      src:
        description:
          - The export, as C(server:/exported/path). An IPv6 address needs brackets.
          - This, or O(mounts[].server) and O(mounts[].export), is needed for O(mounts[].state=mounted) and
            O(mounts[].state=present).
        type: str
      server:
        description:
          - Name or address of the server, an IPv6 address without brackets; together with O(mounts[].export).
        type: str
      export:
        description:
          - The path on the server, as its clients see it; together with O(mounts[].server).
        type: str
      options:
        description:
          - Options of nfs(5) and mount(8), one by one or with commas. An unknown one is refused.
          - Those that concern the boot only (such as V(_netdev), V(nofail), V(bg), V(x-systemd.requires=...)) are
            written to fstab and not used for the mount that is made now.
        type: list
        elements: str
        default: []
      state:
        description:
          - V(mounted), mounted now and, with O(mounts[].boot), in fstab.
          - V(present), in fstab; the live mount is left alone.
          - V(unmounted), not mounted now, and no trigger armed; fstab is left alone.
          - V(absent), neither mounted nor in fstab. Its line leaves fstab only when the mount is gone.
        type: str
        choices: [mounted, present, unmounted, absent]
        default: mounted
      boot:
        description:
          - Whether fstab has a line of it.
        type: bool
        default: true
      automount:
        description:
          - Lets systemd mount it at the first access (systemd.automount(5)), now and after the boot. An armed trigger
            then counts as mounted. The same as V(x-systemd.automount) among O(mounts[].options).
        type: bool
        default: false
      automount_idle_timeout:
        description:
          - Seconds without use after which systemd unmounts it again. Without it, or with V(0), never.
        type: int
      unmount:
        description:
          - How it is unmounted where that is needed.
          - V(normal), only if nothing uses it. Otherwise the item fails and names the processes.
          - V(lazy), C(umount -l); the path is free at once, and whatever uses the mount keeps it until it lets go.
          - V(abort), C(umount -f -l); also ends the requests that wait for a dead server. What was not written yet is
            lost, and everything that uses the same superblock gets errors. If that includes mounts that are not
            aborted by this call, O(allow_abort_shared_io) is needed.
        type: str
        choices: [normal, lazy, abort]
        default: normal
      mount_id:
        description:
          - For O(mounts[].state=unmounted) and O(mounts[].state=absent). Only the mount of this number, as
            M(clusterkit.storage.nfs_mounts_info) reports it, is unmounted, and nothing that took its place since.
        type: int
      major_minor:
        description:
          - As O(mounts[].mount_id), but the number of the superblock, such as V(0:52).
        type: str
      remove_mount_point:
        description:
          - With O(mounts[].state=absent), removes the mount point in the end. It stays if something is in it, or if it
            lies on a server.
        type: bool
        default: false
      owner:
        description:
          - Owner, name or number, of the mount point if it has to be made. An existing one is left as it is.
        type: str
      group:
        description:
          - Group, name or number, of the mount point if it has to be made.
        type: str
      mode:
        description:
          - Mode of the mount point if it has to be made, octal and quoted. Without it, V(0755).
        type: raw
  mount_defaults:
    description:
      - Options that C(mount.nfs) adds to the mounts of the host, of one server, or of one mount point, see
        nfsmount.conf(5). Kept in C(/etc/nfsmount.conf.d/clusterkit.conf) or, where nfs-utils is older than 2.5.3 and
        does not read that folder, in a block at the beginning of C(/etc/nfsmount.conf).
      - An empty list removes them. If not given, they are left alone.
      - C(mount.nfs) appends these to the options of a mount, and the last one wins. V(soft) for all mounts overrules
        even those that ask for V(hard), those of Kubernetes volumes included; the module warns about it. Mounts that a
        container makes, such as those of csi-driver-nfs, are not reached.
    type: list
    elements: dict
    suboptions:
      options:
        description:
          - The options.
        type: list
        elements: str
        required: true
      server:
        description:
          - Only for mounts from the server of this name, as it stands in their source.
        type: str
      path:
        description:
          - Only for this mount point.
        type: str
  nfs4_unique_id:
    description:
      - What distinguishes this host from others of the same host name for NFSv4 servers, see nfs(5). Set in the running
        kernel, and in C(/etc/modprobe.d/clusterkit-nfs.conf). If not given, it is left alone.
      - Takes effect for a server when nothing is mounted from it any more.
    type: str
  timeout:
    description:
      - Seconds that a command may wait for a server. A server that let one wait that long is not asked again in
        the same call.
    type: float
    default: 60
  allow_abort_shared_io:
    description:
      - Lets O(mounts[].unmount=abort) hit mounts that share the superblock and stay. Whoever writes there gets errors.
    type: bool
    default: false
extends_documentation_fragment:
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.host
attributes:
  check_mode:
    support: full
    details:
      - Works before the NFS client is installed, too.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: clusterkit.storage.nfs_mounts_info
  - module: clusterkit.storage.nfs_probe
  - module: ansible.posix.mount
"""

EXAMPLES = r"""
- name: Two mounts, and one that goes
  clusterkit.storage.nfs_mounts:
    mounts:
      - src: nfs1.example.com:/srv/nfs/data
        path: /srv/data
        options: [rw, hard, nfsvers=4.1]
      - src: nfs1.example.com:/srv/nfs/logs
        path: /var/log/collected
        options: rw,hard,_netdev,nofail
        mode: "0750"
      - path: /old
        state: absent

- name: Mounted at the first access, unmounted after ten minutes without one
  clusterkit.storage.nfs_mounts:
    mounts:
      - server: nfs1.example.com
        export: /srv/nfs/data
        path: /srv/archive
        automount: true
        automount_idle_timeout: 600

- name: Gone, and its mount point too
  clusterkit.storage.nfs_mounts:
    mounts:
      - path: /srv/former
        state: absent
        remove_mount_point: true

- name: Only for now, not after the next boot
  clusterkit.storage.nfs_mounts:
    mounts:
      - src: "[2001:db8::10]:/srv/nfs/data"
        path: /mnt/data
        boot: false
"""

RETURN = r"""
mounts:
  description: What became of each item, in the order of the input, also when some of them failed.
  returned: when the input was right
  type: list
  elements: dict
  contains:
    path:
      description: The mount point.
      type: str
    src:
      description: The wanted export.
      type: str
    state:
      description: The wanted state.
      type: str
    changed:
      description: Whether something was (in check mode, would be) done for it.
      type: bool
    failed:
      description: Whether it is not as wanted.
      type: bool
    msg:
      description: Why it failed.
      type: str
    actions:
      description: What was done, or would be done in check mode.
      type: list
      elements: str
      sample: [make the mount point, "mount nfs1.example.com:/srv/nfs/data", add its line in /etc/fstab]
    notes:
      description: What is worth knowing, such as options that do nothing.
      type: list
      elements: str
    live:
      description: The NFS mount that is visible at the path afterwards, V(null) without one.
      type: dict
      contains:
        source:
          description: The export, as the kernel names it.
          type: str
        options:
          description: Options of the mount in force.
          type: list
          elements: str
        super_options:
          description: Options of the superblock in force, which it may share with other mounts.
          type: list
          elements: str
mount_defaults_changed:
  description: Whether nfsmount.conf was changed.
  returned: when the input was right
  type: bool
nfs4_unique_id_changed:
  description: Whether O(nfs4_unique_id) was changed.
  returned: when the input was right
  type: bool
problems:
  description: Everything that is wrong with the input. Nothing was changed.
  returned: when the input is wrong
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.clusterkit.storage.plugins.module_utils import _client_identity, _mount_input, _nfsmount_conf
from ansible_collections.clusterkit.storage.plugins.module_utils._caller import Caller, CallerGoneError
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine, problems_of_host
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_run import Runner

ARGUMENTS = {
    "mounts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "src": {"type": "str"},
            "server": {"type": "str"},
            "export": {"type": "str"},
            "options": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": list(_mount_input.STATES), "default": "mounted"},
            "boot": {"type": "bool", "default": True},
            "automount": {"type": "bool", "default": False},
            "automount_idle_timeout": {"type": "int"},
            "unmount": {"type": "str", "choices": list(_mount_input.UNMOUNTS), "default": "normal"},
            "mount_id": {"type": "int"},
            "major_minor": {"type": "str"},
            "remove_mount_point": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw"},
        },
    },
    "mount_defaults": {
        "type": "list",
        "elements": "dict",
        "options": {
            "options": {"type": "list", "elements": "str", "required": True},
            "server": {"type": "str"},
            "path": {"type": "str"},
        },
    },
    "nfs4_unique_id": {"type": "str"},
    "timeout": {"type": "float", "default": 60},
    "allow_abort_shared_io": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    caller = Caller()
    caller.heed_signals()
    machine = Machine(caller)
    items, problems = _mount_input.read_input(module.params["mounts"])
    defaults = module.params["mount_defaults"]
    if defaults is not None:
        defaults, wrong = _nfsmount_conf.read_defaults(defaults)
        problems += wrong
    identifier = module.params["nfs4_unique_id"]
    wrong_identifier = None if identifier is None else _client_identity.problem(identifier)
    problems += [wrong_identifier] if wrong_identifier else []
    if not problems and not module.check_mode:
        problems = problems_of_host(machine, items)
    if module.params["timeout"] <= 0:
        problems.append("timeout: must be more than 0 seconds")
    if problems:
        module.fail_json(msg="nothing was changed: " + "; ".join(problems), problems=problems)

    runner = Runner(
        machine,
        timeout=module.params["timeout"],
        check_mode=module.check_mode,
        allow_abort_shared_io=module.params["allow_abort_shared_io"],
    )
    identity = None
    try:
        if identifier is not None:
            identity = _client_identity.ensure(identifier, check_mode=module.check_mode)
        outcome = runner.apply(items, defaults)
    except CallerGoneError:
        module.fail_json(msg="nobody waits for the result any more, so nothing further was done")
    except OSError as error:
        module.fail_json(msg=f"stopped: {error}")
    for warning in outcome.warnings:
        module.warn(warning)
    new_identity = identity is not None and identity.changed
    result = {
        "changed": outcome.changed or new_identity,
        "mounts": [each.to_dict() for each in outcome.results],
        "mount_defaults_changed": outcome.mount_defaults_changed,
        "nfs4_unique_id_changed": new_identity,
        "diff": outcome.diff + _client_identity.diff(identity),
    }
    if outcome.failures:
        module.fail_json(msg="; ".join(outcome.failures), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
