#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in pods, one before something and one after it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_exec
short_description: Run a command in pods before something is done, and another one after it
version_added: 0.1.0
description:
  - Runs commands in containers that are running, for example to let a database write out what it has, and hold still,
    while its volume is copied.
  - What is to be run afterwards is noted on the pod itself (annotation C(storage.clusterkit/after)) before anything is
    run. A run that is killed leaves behind all that is needed to make up for it, by the next run or by O(state=ended)
    without O(commands).
  - A command C(before) that fails is followed by the one C(after) at once. If that fails too, its note stays.
  - One that fails does not stop the others. The module then fails with the results of all.
  - A command that does not end in time counts as failed. It may still run, since nobody can end it from outside.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - clusterkit.storage.attributes
  - clusterkit.storage.attributes.k8s
  - clusterkit.storage.api
attributes:
  check_mode:
    support: partial
    details:
      - No command is run, and none is taken for failed. Every note is sent to the API as a dry run.
  diff_mode:
    support: none
    details:
      - RV(commands) says what was run.
  idempotent:
    support: full
    details:
      - What O(run) has begun is not begun again, and what is not owed any more is not run. A command without C(after)
        leaves no note, and is run each time.
options:
  state:
    description:
      - V(begun) runs the commands C(before). What an earlier run still owes in the same container is run first.
      - V(ended) runs the commands C(after) of those that O(run) has begun.
      - V(listed) changes nothing, and tells what is owed.
    type: str
    choices: [begun, ended, listed]
    required: true
  commands:
    description:
      - The commands, with their pods. Without them, V(ended) means all that any run owes.
    type: list
    elements: dict
    suboptions:
      namespace:
        description: Namespace of the pod.
        type: str
        required: true
      pod:
        description: Name of the pod.
        type: str
        required: true
      uid:
        description: Uid of the pod. Another one of the same name is left alone.
        type: str
        required: true
      container:
        description: Name of the container.
        type: str
        required: true
      before:
        description: The command before, as a list of words. No shell reads them.
        type: list
        elements: str
        default: []
      after:
        description:
          - The command after, as a list of words. It must do no harm when C(before) was not run, has failed, or when
            it is run twice.
        type: list
        elements: str
        default: []
      timeout:
        description: Seconds that each of them may take.
        type: int
        default: 60
  run:
    description:
      - A word that tells this run from others. Needed for V(begun), and for V(ended) with O(commands).
    type: str
author:
  - The clusterkit.storage authors (@clusterkit)
notes:
  - "The user needs these rights: get and patch on pods, get and create on pods/exec; for O(state=listed), and without
    O(commands), list on pods of all namespaces."
  - Commands stand in the annotation, in the audit log of the API and in results. Let them read passwords from the
    environment or the files of their container.
seealso:
  - module: clusterkit.storage.volume_backup
  - module: clusterkit.storage.workload_scale
"""

EXAMPLES = r"""
- name: Have a database write out what it has
  clusterkit.storage.pod_exec:
    state: begun
    run: nightly
    commands: &commands
      - namespace: shop
        pod: database-0
        uid: 5b0c7d1e-8d5f-4e27-9a0e-6c1f7f1a9c11
        container: database
        before: [sh, -c, 'mysqldump --all-databases > /data/dump.sql.new && mv /data/dump.sql.new /data/dump.sql']
        after: [rm, -f, /data/dump.sql.new]
        timeout: 600

- name: Clean up
  clusterkit.storage.pod_exec:
    state: ended
    run: nightly
    commands: *commands
"""

RETURN = r"""
commands:
  description: What became of each, in the order of the list, also when some of them failed.
  returned: always, except when the API cannot be asked
  type: list
  elements: dict
  contains:
    namespace: {description: Namespace of the pod., type: str, sample: shop}
    pod: {description: Name of the pod., type: str, sample: database-0}
    uid: {description: Uid of the pod., type: str}
    container: {description: Name of the container., type: str, sample: database}
    before: {description: The command before., type: list, elements: str}
    after: {description: The command after., type: list, elements: str}
    timeout: {description: Seconds that each of them may take., type: int}
    state:
      description:
        - "V(begun), V(ended), V(unchanged), V(failed), or V(lost): the pod is not there any more, or the container has
          begun anew since."
      type: str
      sample: begun
    taken_over: {description: Whether an earlier run owed something that was run first., type: bool}
    run: {description: "With O(state=listed), the run that owes it.", type: str}
    at: {description: "With O(state=listed), since when.", type: str, sample: "2026-03-01T02:00:00Z"}
    reason: {description: Why it was not done., type: str}
"""

from ansible_collections.clusterkit.storage.plugins.module_utils import _pod_exec
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import ApiModule

ARGUMENTS = {
    "state": {"type": "str", "choices": ["begun", "ended", "listed"], "required": True},
    "commands": {"type": "list", "elements": "dict", "options": _pod_exec.COMMAND},
    "run": {"type": "str"},
}


def main() -> None:
    module = ApiModule(
        ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "begun", ("commands", "run"))],
        required_by={"commands": "run"},
    )
    try:
        module.exit_json(**_pod_exec.carry_out(module.client(), module.params))
    except _pod_exec.NotAllError as error:
        module.fail_json(msg=str(error), **error.result)
    except ApiError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
