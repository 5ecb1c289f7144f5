# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provisioners and classes that could never work, or would destroy data, are refused; surprises are noted.

Each rule with its reference stands in docs/preflight.md.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _input_checks
from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import DEFAULT_CLASS, Cluster
from ansible_collections.clusterkit.storage.plugins.module_utils._input_checks import Tell
from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean

# Below: CVE-2026-3864, volumes outside of the share by way of subDir.
SAFE_CSI = (4, 13, 1)
METHODS = {"subdir": ("manifests", "helm", "installed"), "csi": ("helm", "installed")}
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def check(cluster: Cluster, problem: Tell, note: Tell) -> None:
    _check_provisioners(cluster, problem)
    _check_classes(cluster, problem, note)


def _check_provisioners(cluster: Cluster, problem: Tell) -> None:
    place = partial("k8s_storage_provisioners[{}].{}".format)
    sent = [(index, one) for index, one in cluster.installed if one["method"] != "installed"]
    _input_checks.unique("k8s_storage_provisioners", "name", sent, problem)
    _input_checks.unique("k8s_storage_provisioners", "provisioner_name", cluster.installed, problem)
    for index, one in enumerate(cluster.provisioners):
        here = partial(_at, problem, f"k8s_storage_provisioners[{index}]")
        _input_checks.check_name(one["name"], _input_checks.LABEL, 63, partial(here, "name"))
        _input_checks.check_name(one["namespace"], _input_checks.LABEL, 63, partial(here, "namespace"))
        _input_checks.check_provisioner_name(one["provisioner_name"], partial(here, "provisioner_name"))
        _check_place(one, here)
        _check_method(one, cluster, here)
        if "nfs-client-provisioner" in one["image"].rpartition("/")[2]:
            here(
                "image",
                f'"{one["image"]}" needs selfLink, which Kubernetes dropped in 1.20 (KEP-1164); '
                "take nfs-subdir-external-provisioner v4.0.2",
            )
        _input_checks.check_strings(one["node_selector"], place(index, "node_selector"), problem)
        if one["replicas"] < 1:
            here("replicas", f"{one['replicas']} is no number of pods; at least 1 is needed")
        if one["snapshot_classes"] and one["engine"] != "csi":
            here("snapshot_classes", "only engine csi makes snapshots")
        for number, each in enumerate(one["snapshot_classes"]):
            key = f"snapshot_classes[{number}]"
            _input_checks.check_name(each["name"], _input_checks.SUBDOMAIN, 253, partial(here, f"{key}.name"))
            _input_checks.check_strings(each["parameters"], f"{place(index, key)}.parameters", problem)


def _at(tell: Tell, place: str, key: str, message: str) -> None:
    tell(f"{place}.{key}", message)


def _check_place(one: dict[str, Any], tell: Tell) -> None:
    """The CSI driver needs no share of its own: each class names one."""
    missing = [key for key in ("server", "path") if not one[key]]
    if missing and one["engine"] == "csi" and len(missing) == 2:
        return
    for key in missing:
        tell(key, f'is missing in "{one["name"]}"')
    if one["path"]:
        _input_checks.check_directory(one["path"], partial(tell, "path"))
    if one["path"] == "/":
        tell("path", "the root of the server cannot hold volumes; name a directory of their own")
    if one["server"]:
        _input_checks.check_server(one["server"], partial(tell, "server"))


def _check_method(one: dict[str, Any], cluster: Cluster, tell: Tell) -> None:
    methods = METHODS.get(one["engine"])
    if methods is None:
        return
    if one["method"] not in methods:
        tell("method", f"engine {one['engine']} takes {' or '.join(methods)}, not {one['method']}")
        return
    if one["method"] == "helm":
        if not one["chart"]:
            tell("chart", f'is missing in "{one["name"]}": a chart reference, a folder or an archive of a chart')
        if cluster.helm == "":
            tell("method", "helm is not installed on the host that talks to the API; install it there, version 3 or 4")
    if one["engine"] == "csi":
        _check_csi_version(one, cluster, tell)


def _check_csi_version(one: dict[str, Any], cluster: Cluster, tell: Tell) -> None:
    """What the chart is called, what the values say, and what runs already if somebody else installs it."""
    values = one["values"].get("image") if isinstance(one["values"].get("image"), dict) else {}
    plugin = (values or {}).get("nfs")
    said = [("chart_version", one["chart_version"]), ("chart", one["chart"].rpartition("/")[2])]
    if isinstance(plugin, dict):
        said.append(("values.image.nfs.tag", str(plugin.get("tag") or "")))
    if one["method"] == "installed":
        images = [each["image"] for each in cluster.controllers if each["provisioner"] == one["provisioner_name"]]
        said = [("method", image) for image in images]
    for key, text in said:
        found = _VERSION.search(text)
        if found and tuple(map(int, found.groups())) < SAFE_CSI:
            tell(
                key,
                f'"{text}" is csi-driver-nfs below {".".join(map(str, SAFE_CSI))}, whose subDir leads out of the share '
                "(CVE-2026-3864); take a newer one",
            )


def _check_classes(cluster: Cluster, problem: Tell, note: Tell) -> None:
    _input_checks.unique("k8s_storage_classes", "name", enumerate(cluster.classes), problem)
    ours = {one["provisioner_name"] for _index, one in cluster.installed}
    for index, one in enumerate(cluster.classes):
        place = f"k8s_storage_classes[{index}]"
        here = partial(_at, problem, place)
        _input_checks.check_name(one["name"], _input_checks.SUBDOMAIN, 253, partial(here, "name"))
        _input_checks.check_provisioner_name(one["provisioner"], partial(here, "provisioner"))
        for key in ("parameters", "labels", "annotations"):
            _input_checks.check_strings(one[key], f"{place}.{key}", problem)
        _input_checks.check_mount_options(one["mount_options"], f"{place}.mount_options", problem, note)
        if one["provisioner"] not in ours:
            note(
                f"{place}.provisioner",
                f'no provisioner of k8s_storage_provisioners is called "{one["provisioner"]}"; claims of class '
                f'"{one["name"]}" wait until somebody installs one{did_you_mean(one["provisioner"], ours)}',
            )
        if "pathPattern" in one["parameters"]:
            _check_pattern(one, here)
        if cluster.engine_of(one["provisioner"]) == "subdir":
            _note_subdir(one, partial(_at, note, place))
    _check_default_class(cluster, problem)


def _check_pattern(one: dict[str, Any], tell: Tell) -> None:
    """The provisioner removes or archives what lies at the share's top under the last part of the volume's path."""
    pattern = str(one["parameters"]["pathPattern"])
    # The name of an annotation, in ${...}, has dots and slashes of its own.
    parts = re.split(r"/(?![^{}]*\})", pattern)
    if ".." in parts:
        tell("parameters.pathPattern", f'"{pattern}" leads out of the share by ".."; nothing checks that later')
    if one["allow_path_pattern"]:
        return
    why = (
        "nfs-subdir-external-provisioner v4.0.2 then leaves, mixes or removes the wrong directories; say "
        "allow_path_pattern: true if that is meant"
    )
    if len(parts) > 1:
        tell("parameters.pathPattern", f'"{pattern}" has more than one path part: {why}')
    missing = [word for word in ("${.PVC.namespace}", "${.PVC.name}") if word not in parts[-1]]
    if missing:
        tell("parameters.pathPattern", f'the last part of "{pattern}" lacks {" and ".join(missing)}: {why}')


def _note_subdir(one: dict[str, Any], tell: Tell) -> None:
    if one["reclaim_policy"] == "Delete" and fate(one["parameters"]) == "removed":
        tell(
            "reclaim_policy", f'the data of a claim of class "{one["name"]}" is gone at once when the claim is deleted'
        )
    if one["allow_volume_expansion"]:
        tell(
            "allow_volume_expansion",
            f'nothing enforces the size of a volume of class "{one["name"]}"; the key only lets the playbook expand '
            "change what is written down",
        )


def fate(parameters: dict[str, Any]) -> str:
    """What nfs-subdir-external-provisioner v4.0.2 does with a directory when its volume is deleted."""
    chosen = {"delete": "removed", "retain": "kept"}.get(parameters.get("onDelete", ""))
    if chosen:
        return chosen
    # strconv.ParseBool
    archive = str(parameters.get("archiveOnDelete", "true"))
    return "removed" if archive in ("0", "f", "F", "false", "FALSE", "False") else "archived"


def _check_default_class(cluster: Cluster, problem: Tell) -> None:
    defaults = [(index, one["name"]) for index, one in enumerate(cluster.classes) if one["default"]]
    for index, name in defaults[1:]:
        problem(
            f"k8s_storage_classes[{index}].default",
            f'"{name}" and "{defaults[0][1]}" cannot both be the default class',
        )
    others = default_classes_of_others(cluster)
    for index, name in defaults[:1]:
        if others and not cluster.allow_take_default:
            problem(
                f"k8s_storage_classes[{index}].default",
                f'"{others[0]}" is the default class of the cluster; take the annotation {DEFAULT_CLASS} from it '
                f'first, say k8s_storage_allow_take_default: true, or leave "{name}" without default',
            )


def default_classes_of_others(cluster: Cluster) -> list[str]:
    ours = {one["name"] for one in cluster.classes}
    return [name for name in cluster.live_defaults if name not in ours]
