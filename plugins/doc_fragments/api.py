# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules for the Kubernetes API have in common, besides those of kubernetes.core."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - kubernetes >= 24.2.0 (Python library), where the module runs
options:
  request_timeout:
    description:
      - Seconds that the API may take for one answer.
    type: int
    default: 30
  retry_timeout:
    description:
      - Seconds for which a request is sent again after the status codes 429, 500, 502, 503 and 504 and after
        dropped connections, with growing pauses or those that the API asks for (C(Retry-After)).
      - An API that does not answer at all is given up after 10 seconds.
      - Also the time for which an object is tried again that others change all the time.
    type: int
    default: 120
"""

    SELECTION = r"""
options:
  selection:
    description:
      - Which volumes are meant. A volume must fit all criteria that are given.
    type: dict
    suboptions:
      names:
        description: Names, or patterns such as V(pvc-*).
        type: list
        elements: str
      label_selectors:
        description: Label selectors of Kubernetes, such as V(app=web) or V(tier in (gold, silver)); all must fit.
        type: list
        elements: str
      storage_classes:
        description: Names of StorageClasses; an empty string means volumes without one.
        type: list
        elements: str
      provisioners:
        description:
          - Provisioners, as in the annotation C(pv.kubernetes.io/provisioned-by); for other CSI volumes their driver.
        type: list
        elements: str
      drivers:
        description: V(nfs), V(csi), V(other), or the name of a CSI driver.
        type: list
        elements: str
      phases:
        description: Phases.
        type: list
        elements: str
        choices: [Pending, Available, Bound, Released, Failed]
      policies:
        description: Reclaim policies.
        type: list
        elements: str
        choices: [Retain, Delete, Recycle]
      server:
        description: NFS server, spelled as in the volume.
        type: str
      path_prefix:
        description: A directory of the server; volumes in it or below fit.
        type: str
      claim_namespaces:
        description: Namespaces of the claim that a volume names, or patterns.
        type: list
        elements: str
      released_for:
        description:
          - Length of time such as V(12h), V(30d) or V(1d12h), by the clock of the API server. Volumes that are
            Released or Failed for at least as long fit. One of which it is not known since when never fits.
        type: str
      abandoned:
        description:
          - Whether the provisioner of the volume is stopped. Volumes without a provisioner are not abandoned.
        type: bool
"""

    CHANGES = r"""
options:
  plan:
    description:
      - A file that M(clusterkit.storage.storage_plan) wrote, on the machine where the module runs. Exactly its steps
        are done, with the request that it was made for. What has changed since the plan was made is left alone and
        reported as V(stale), unless it has what the plan wants already.
      - What became of each step is written to a file beside it, whose name ends in C(.result.jsonl); nothing is written
        in check mode.
    type: path
  max_changes:
    description:
      - At most so many objects may change, as a count such as V(50), or as V(10%) of all volumes of the cluster,
        rounded up. If more would change, nothing is done and the module fails.
    type: str
  on_error:
    description:
      - V(continue) does all that can be done and fails at the end. V(stop) begins nothing if one of the objects that
        are named, or of O(plan), is refused or not there, and nothing more once a change has failed.
    type: str
    choices: [continue, stop]
    default: continue
  wait_timeout:
    description: Seconds to wait at most.
    type: int
    default: 120
"""
