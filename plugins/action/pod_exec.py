# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of all modules for the Kubernetes API, under the name of this one.

A redirect in meta/runtime.yml would make ansible-lint call pv_info the canonical name of this module.
"""

from __future__ import annotations

from ansible_collections.clusterkit.storage.plugins.action.pv_info import ActionModule

__all__ = ["ActionModule"]
