# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that the modules of this collection have in common.

A module that changes something extends `clusterkit.storage.attributes` and says itself how far it supports
check_mode, diff_mode and idempotent. A module that only reads adds `clusterkit.storage.attributes.info`;
one that does the steps of a plan to recover adds `.steps`.
One that runs on NFS machines adds `.host`; one that talks to the Kubernetes API adds `.k8s`, and `.dry_run` if check
mode asks the API; one that works with a repository of backups adds `.backup`.
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)),
        when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments,
        the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
  platform:
    description: Target OS or families that can be operated against.
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify state.
  diff_mode:
    support: N/A
    details:
      - This module does not modify state.
  idempotent:
    support: full
    details:
      - This module does not modify state.
"""

    STEPS = r"""
options: {}
attributes:
  diff_mode:
    support: none
    details:
      - The steps say what changes.
  idempotent:
    support: full
    details:
      - A step that was done is V(gone) in a second run.
"""

    HOST = r"""
options: {}
attributes:
  platform:
    support: full
    platforms: linux
"""

    K8S = r"""
options: {}
attributes:
  platform:
    support: full
    platforms: posix
  action_group:
    description:
      - Use C(group/clusterkit.storage.k8s) in C(module_defaults) to set the access to the Kubernetes API
        once for all modules of this collection that need it.
    support: full
    membership:
      - clusterkit.storage.k8s
"""

    DRY_RUN = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - Every change is sent to the API as a dry run. Waiting is left out.
"""

    BACKUP = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/clusterkit.storage.backup) in C(module_defaults) to say once, for all modules of this collection
        that work with a repository of backups, where that is.
    support: full
    membership:
      - clusterkit.storage.backup
"""
