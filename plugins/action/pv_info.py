# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of all modules for the Kubernetes API."""

from __future__ import annotations

from typing import Any

from ansible_collections.kubernetes.core.plugins.action.k8s_info import ActionModule as KubernetesAction


class ActionModule(KubernetesAction):  # type: ignore[misc] # kubernetes.core has no types
    """Finds a kubeconfig beside the playbook, and opens one that is encrypted with Ansible Vault."""

    def _ensure_invocation(self, result: dict[str, Any]) -> dict[str, Any]:
        """Leave the arguments out: kubernetes.core adds them as they were given, with tokens and keys.

        ansible-core 2.21 lets modules tell their arguments only on request, so that it does so always.
        """
        return result
