#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments and StatefulSets that are stopped for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_scale
short_description: Stop workloads for a while, and start them again as they were
version_added: 0.1.0
description:
  - Scales Deployments and StatefulSets to zero, and back to what they had, so that volumes can be backed up or restored
    while nobody writes to them.
  - What they had is noted on the object itself (annotation C(storage.clusterkit/stopped)) in the request that stops it.
    A run that is killed leaves behind all that is needed to start them again, by the next run or by O(state=started)
    without O(workloads).
  - One that fails does not stop the others. The module then fails with the results of all.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.attributes.dry_run
  - clusterkit.storage.api
attributes:
  diff_mode:
    support: none
    details:
      - RV(workloads) says what changes.
  idempotent:
    support: full
options:
  state:
    description:
      - V(stopped) scales to zero. One that an earlier run has stopped is taken over, with what that run noted.
      - V(started) scales back what O(run) has stopped. One that somebody has scaled meanwhile keeps what it has.
      - V(listed) changes nothing, and tells what runs have stopped and nobody has started since.
    type: str
    choices: [stopped, started, listed]
    required: true
  workloads:
    description:
      - The workloads. Without them, V(started) means all that any run has stopped.
      - A horizontal autoscaler leaves alone what has no replicas.
    type: list
    elements: dict
    suboptions:
      kind:
        description: Kind.
        type: str
        choices: [Deployment, StatefulSet]
        required: true
      namespace:
        description: Namespace.
        type: str
        required: true
      name:
        description: Name.
        type: str
        required: true
  run:
    description:
      - A word that tells this run from others. Needed for V(stopped), and for V(started) with O(workloads).
    type: str
  claims:
    description:
      - For V(stopped), the claims that no pod may mount afterwards. It is waited for, and told in RV(claims).
    type: list
    elements: dict
    default: []
    suboptions:
      namespace:
        description: Namespace.
        type: str
        required: true
      name:
        description: Name.
        type: str
        required: true
  wait_timeout:
    description: Seconds to wait for O(claims) at most.
    type: int
    default: 120
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get and patch on deployments and statefulsets (apps), and list on pods of the
    namespaces of O(claims); for O(state=listed), and without O(workloads), list on deployments and statefulsets."
seealso:
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.volume_restore
"""

EXAMPLES = r"""
- name: Stop a database
  clusterkit.storage.workload_scale:
    state: stopped
    run: nightly
    workloads:
      - {kind: StatefulSet, namespace: shop, name: database}
    claims:
      - {namespace: shop, name: data-database-0}

- name: Start it again
  clusterkit.storage.workload_scale:
    state: started
    run: nightly
    workloads:
      - {kind: StatefulSet, namespace: shop, name: database}
"""

RETURN = r"""
workloads:
  description: What became of each workload, also when some of them failed.
  returned: always, except when the API cannot be asked
  type: list
  elements: dict
  contains:
    kind: {description: Kind., type: str, sample: Deployment}
    namespace: {description: Namespace., type: str, sample: shop}
    name: {description: Name., type: str, sample: web}
    state:
      description: "V(stopped), V(started), V(unchanged), V(gone) or V(failed)."
      type: str
      sample: stopped
    replicas:
      description: How many replicas it has, or gets back.
      type: int
      sample: 3
    taken_over: {description: Whether an earlier run had stopped it and not started again., type: bool}
    stopped:
      description: With O(state=listed), the C(replicas) that it had, the C(run) that has stopped it, and when (C(at)).
      type: dict
    reason: {description: Why it was not done., type: str}
claims:
  description: The claims of O(claims), with the C(pods) that mount them at the end.
  returned: always, except when the API cannot be asked
  type: list
  elements: dict
  contains:
    namespace: {description: Namespace., type: str, sample: shop}
    name: {description: Name., type: str, sample: data}
    pods: {description: Namespace and name of each pod., type: list, elements: str}
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _workload_scale
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "state": {"type": "str", "choices": ["stopped", "started", "listed"], "required": True},
    "workloads": {"type": "list", "elements": "dict", "options": _workload_scale.WORKLOAD},
    "run": {"type": "str"},
    "claims": {"type": "list", "elements": "dict", "default": [], "options": _workload_scale.CLAIM},
    "wait_timeout": {"type": "int", "default": 120},
}


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "stopped", ("workloads", "run"))],
        required_by={"workloads": "run"},
    )
    given = module.params
    try:
        module.exit_json(**_workload_scale.carry_out(module.client(), given))
    except _workload_scale.NotAllError as error:
        module.fail_json(msg=str(error), **error.result)
    except ApiError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
