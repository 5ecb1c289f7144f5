# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what hosts and cluster run is known and recent enough, and why the cluster cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._report import Report

NO_SUCH_HOST = "no host of this name in the inventory"
OLDEST_PYTHON = (3, 9)
# Server-side apply with its present rules, and pod spreading that honours taints.
OLDEST_KUBERNETES = (1, 26)
_OLDEST_SYSTEM = {"Debian": 11, "Ubuntu": 20, "Fedora": 38, "RedHat": 8}
_FAMILIES = {"Debian", "RedHat", "Suse"}


def check_python(host: str, facts: Mapping[str, Any], report: Report) -> None:
    version = (facts.get("python") or {}).get("version") or {}
    found = (version.get("major", 0), version.get("minor", 0))
    if version and found < OLDEST_PYTHON:
        report.problem(
            host,
            "ansible_python_interpreter",
            f"Python {found[0]}.{found[1]} is too old; at least {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} is needed",
        )


def check_system(host: str, facts: Mapping[str, Any], report: Report) -> None:
    kernel = facts.get("system") or "Linux"
    if kernel != "Linux":
        report.problem(host, "ansible_system", f"{kernel} is not supported; servers and nodes run Linux")
        return
    distribution, version = facts.get("distribution") or "", str(facts.get("distribution_version") or "")
    family = facts.get("os_family") or ""
    if family not in _FAMILIES:
        report.note(
            host, "ansible_distribution", f"{distribution or 'this system'} is not known; names of Red Hat are tried"
        )
    # Systems derived from others count in their own way, except those of the Red Hat family.
    oldest = _OLDEST_SYSTEM.get(distribution) or (_OLDEST_SYSTEM["RedHat"] if family == "RedHat" else None)
    number = re.match(r"\d+", version)
    if oldest and number and int(number.group()) < oldest:
        report.problem(host, "ansible_distribution", f"{distribution} {version} is too old; {oldest} is the oldest")


def check_access(cluster: Mapping[str, Any], report: Report) -> None:
    host = cluster["host"]
    if cluster["error"]:
        variable, words = _explain(cluster["error"], cluster["variables"])
        named = any(value for key, value in cluster["variables"].items() if key.startswith("k8s_storage_"))
        if named or cluster["error"] == NO_SUCH_HOST:
            report.problem(host, variable, words)
        else:
            report.note(host, variable, f"{words}; no k8s_storage_* is set, so the cluster is left alone")
        return
    match = re.match(r"v?(\d+)\.(\d+)", cluster["version"] or "")
    if match and (int(match.group(1)), int(match.group(2))) < OLDEST_KUBERNETES:
        report.problem(
            host,
            "storage_kubeconfig",
            f"the cluster runs Kubernetes {cluster['version']}; at least "
            f"{OLDEST_KUBERNETES[0]}.{OLDEST_KUBERNETES[1]} is needed",
        )


def _explain(error: str, variables: Mapping[str, Any]) -> tuple[str, str]:
    """What went wrong on the way to the API, in words that name the variable to look at."""
    said = first_line(error)
    if error == NO_SUCH_HOST:
        return "storage_api_host", error
    kubeconfig, context = variables.get("storage_kubeconfig"), variables.get("storage_context")
    if "No configuration found" in error or "Could not find or access" in error:
        if kubeconfig:
            return "storage_kubeconfig", f"there is no kubeconfig {kubeconfig} ({said})"
        return (
            "storage_kubeconfig",
            "no kubeconfig: the variable is empty, and neither K8S_AUTH_KUBECONFIG, KUBECONFIG nor ~/.kube/config "
            f"leads to one ({said})",
        )
    if "Expected object with name" in error:
        return "storage_context", f'the kubeconfig has no context "{context}" ({said})'
    if re.search(r"required Python library \(kubernetes|No module named '?kubernetes", error):
        return (
            "ansible_python_interpreter",
            f"this Python has no library kubernetes, which is needed to reach the API; install it there ({said})",
        )
    refused = re.search(r"host='([^']+)', port=(\d+)", error)
    if refused or "timed out" in error.lower() or "timeout" in error.lower():
        where = f" at {refused.group(1)}:{refused.group(2)}" if refused else ""
        return "storage_kubeconfig", f"the API server{where} does not answer ({_reason(error) or said})"
    return "storage_kubeconfig", f"the cluster cannot be read: {said}"


def _reason(error: str) -> str:
    found = re.search(r"\[Errno -?\d+\] [^\"')]+|certificate verify failed[^\"')]*|Name or service not known", error)
    return found.group() if found else ""


def first_line(text: str) -> str:
    line = next((line.strip() for line in str(text).splitlines() if line.strip()), "")
    return line if len(line) <= 300 else line[:297] + "..."
