# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules for the Kubernetes API from arguments to result, where that needs no API."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.doc_fragments import api as fragment
from ansible_collections.clusterkit.storage.plugins.module_utils import _api_module, _listing
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import API_ARGUMENTS, access_arguments
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.plugins.modules import (
    pod_exec,
    pod_info,
    pod_recover,
    pv_cleanup,
    pv_info,
    pv_reclaim,
    pv_restore,
    pvc_expand,
    storage_cluster_info,
    storage_diagnose,
    storage_plan,
    workload_scale,
)
from ansible_collections.clusterkit.storage.tests.api_server import Cluster
from ansible_collections.clusterkit.storage.tests.module_process import differing_options, run_here
from kubernetes import config

ROOT = Path(__file__).resolve().parents[4]
API_MODULES = [
    pod_exec, pod_info, pod_recover, pv_cleanup, pv_info, pv_reclaim, pv_restore, pvc_expand, storage_cluster_info,
    storage_diagnose, workload_scale,
]  # fmt: skip


@pytest.mark.parametrize("module", [*API_MODULES, storage_plan])
def test_the_documented_options_are_those_that_exist(module: ModuleType) -> None:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    fragments = documentation["extends_documentation_fragment"]
    documented: dict[str, Any] = {}
    for name in ("selection", "changes"):
        if f"clusterkit.storage.api.{name}" in fragments:
            documented |= yaml.safe_load(getattr(fragment.ModuleDocFragment, name.upper()))["options"]
    assert differing_options(documented | documentation["options"], module.ARGUMENTS) == []
    assert ("kubernetes.core.k8s_auth_options" in fragments) is (module in API_MODULES)


def test_the_documented_timeouts_are_those_that_exist() -> None:
    documented = yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]
    assert {name: (one["type"], one["default"]) for name, one in documented.items()} == {
        name: (one["type"], one["default"]) for name, one in API_ARGUMENTS.items()
    }


def test_the_action_group_is_sorted_and_complete_and_all_have_the_action() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    files = (ROOT / "plugins/modules").glob("*.py")
    takes_access = sorted(one.stem for one in files if "kubernetes.core.k8s_auth_options" in one.read_text())
    assert runtime["action_groups"]["k8s"] == takes_access
    assert sorted(one.stem for one in (ROOT / "plugins/action").glob("*.py")) == takes_access


SECRET = "c2VjcmV0"  # noqa: S105 (nobody's)
KUBECONFIG = {
    "users": [{"name": "me", "user": {"token": SECRET, "exec": {"env": []}}}],
    "clusters": [{"cluster": {"server": "https://127.0.0.1:1"}}],
}


@pytest.mark.parametrize("module", API_MODULES)
@pytest.mark.parametrize("wrong", [{"nonsense": 1}, {"request_timeout": "soon"}, {}])
def test_what_is_told_of_wrong_arguments_has_no_secrets(
    module: ModuleType, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result, output = run_here(module, {"kubeconfig": KUBECONFIG, **wrong}, monkeypatch, capsys)
    assert result["failed"]
    assert SECRET not in output
    result, output = run_here(
        module, {"host": "https://127.0.0.1:1", "api_key": SECRET, "password": SECRET, **wrong}, monkeypatch, capsys
    )
    assert result["failed"]
    assert SECRET not in output


def test_arguments_come_before_the_environment() -> None:
    environment = {
        "K8S_AUTH_KUBECONFIG": "/e/config",
        "K8S_AUTH_VERIFY_SSL": "no",
        "K8S_AUTH_PROXY_HEADERS_USER_AGENT": "me",
        "K8S_AUTH_CONTEXT": "one",
    }
    assert access_arguments({"context": "two"}, environment) == {
        "kubeconfig": "/e/config",
        "context": "two",
        "verify_ssl": False,
        "proxy_headers": {"user_agent": "me"},
    }
    assert access_arguments({}, {}) == {}


def test_impersonated_groups_are_headers_of_their_own() -> None:
    given = {"K8S_AUTH_IMPERSONATE_USER": "me", "K8S_AUTH_IMPERSONATE_GROUPS": "a,b,"}
    assert _api_module.headers_of({}, given) == {"Impersonate-User": ["me"], "Impersonate-Group": ["a", "b"]}
    assert _api_module.headers_of({"impersonate_groups": ["c,d"]}, given)["Impersonate-Group"] == ["c,d"]


def listing(path: Path, complete: bool = False, facts: Facts | None = None) -> str:
    item = {
        "metadata": {"name": "pv", "uid": "u", "resourceVersion": "1"},
        "spec": {"nfs": {"server": "s", "path": "/a"}, "claimRef": {"namespace": "n", "name": "c", "uid": "x"}},
        "status": {"phase": "Released"},
    }
    made = _listing.Listing([Volume.of(item)], "cluster", complete, "2026-01-01T00:00:00Z", 10, facts or Facts())
    path.write_text("".join(f"{line}\n" for line in _listing.lines(made)))
    return str(path)


def test_a_plan_is_made_shown_kept_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "action": "reclaim",
        "listing": listing(tmp_path / "l"),
        "reclaim": {"release": "reserved"},
        "dest": str(tmp_path / "plan"),
    }
    first, _output = run_here(storage_plan, arguments, monkeypatch, capsys, check_mode=True)
    assert first["changed"]
    assert not (tmp_path / "plan").exists()
    second, _output = run_here(storage_plan, arguments, monkeypatch, capsys)
    third, _output = run_here(storage_plan, arguments, monkeypatch, capsys)
    assert (second["changed"], third["changed"], second["id"]) == (True, False, first["id"])
    assert second["steps"] == 1
    shown, _output = run_here(storage_plan, {"action": "reclaim", "plan": str(tmp_path / "plan")}, monkeypatch, capsys)
    assert shown["table"] == second["table"]
    assert "Available, Retain, reserved for n/c" in second["table"][2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reclaim": {"release": "open"}, "max_changes": "0"}, "1 volumes would be changed, but max_changes is 0"),
        ({"reclaim": {}}, "nothing is asked for"),
        ({"reclaim": {"policy": "Delete"}}, "allow_future_deletion"),
        ({"reclaim": {"releases": "open"}}, "releases"),
        ({"action": "expand", "expand": {"selection": {"names": ["*"]}, "size": "1Gi"}}, "is not of all volumes"),
    ],
)
def test_requests_that_are_wrong_write_no_plan(
    arguments: dict[str, Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"action": "reclaim", "listing": listing(tmp_path / "l"), "dest": str(tmp_path / "plan"), **arguments}
    result, _output = run_here(storage_plan, given, monkeypatch, capsys)
    assert result["failed"]
    assert words in result["msg"]
    assert not (tmp_path / "plan").exists()


def test_a_listing_of_everything_is_no_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"action": "reclaim", "listing": listing(tmp_path / "l", complete=True), "reclaim": {"release": "open"}}
    result, _output = run_here(storage_plan, given, monkeypatch, capsys)
    assert "never means all" in result["msg"]


def kubeconfig(name: str = "one") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"https://{name}:6443"}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [
            {"name": "a", "context": {"cluster": "c", "user": "u"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": "a",
    }


def test_what_is_given_directly_needs_no_kubeconfig() -> None:
    given = {"host": "https://api/", "api_key": SECRET, "verify_ssl": False, "proxy_headers": {"user_agent": "me"}}
    made, secrets = _api_module.configuration_of(given)
    assert (made.host, made.verify_ssl, made.proxy_headers) == ("https://api", False, {"user-agent": "me"})
    assert made.api_key == {"authorization": f"Bearer {SECRET}"}
    assert secrets == {SECRET}


def test_a_kubeconfig_is_data_or_a_file(tmp_path: Path) -> None:
    made, secrets = _api_module.configuration_of({"kubeconfig": kubeconfig("data")})
    assert (made.host, secrets) == ("https://data:6443", {SECRET})
    (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig("file")))
    given = {"kubeconfig": str(tmp_path / "config"), "context": "b", "persist_config": False, "ssl_ca_cert": "/ca"}
    made, _secrets = _api_module.configuration_of(given)
    assert (made.host, made.ssl_ca_cert) == ("https://file:6443", "/ca")


@pytest.mark.parametrize("in_a_pod", [True, False])
def test_without_anything_the_service_account_comes_before_the_default_kubeconfig(
    in_a_pod: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def in_cluster() -> None:
        asked.append("service account")
        if not in_a_pod:
            raise config.ConfigException("no pod")

    monkeypatch.setattr(config, "load_incluster_config", in_cluster)
    monkeypatch.setattr(config, "load_kube_config", lambda **_options: asked.append("default"))
    _api_module.configuration_of({})
    assert asked == ["service account"] + ([] if in_a_pod else ["default"])


def released(cluster: Cluster, name: str) -> None:
    spec = {"csi": {"driver": "d"}, "claimRef": {"namespace": "shop", "name": "data", "uid": "c1"}}
    cluster.add("persistentvolumes", name, spec=spec, status={"phase": "Released"})


def test_what_was_done_is_told_also_when_its_file_cannot_be_written(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released(cluster, "a")
    access = {"host": cluster.url, "api_key": SECRET, "_ansible_diff": True}
    given = {**access, "volumes": ["a"], "release": "reserved", "dest": str(tmp_path)}
    result, output = run_here(pv_reclaim, given, monkeypatch, capsys)
    assert (result["failed"], result["changed"], result["summary"]["changed"]) == (True, True, 1)
    assert f"{tmp_path} cannot be written" in result["msg"]
    assert [one["state"] for one in result["volumes"]] == ["changed"]
    assert result["diff"]
    assert SECRET not in output


def test_a_file_takes_all_that_became_of_the_volumes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        released(cluster, name)
    cluster.change("persistentvolumes", "b", {"spec": {"claimRef": {"uid": None}}, "status": {"phase": "Available"}})
    dest = tmp_path / "result.jsonl"
    given = {"host": cluster.url, "api_key": SECRET, "volumes": ["a", "b"], "release": "reserved", "dest": str(dest)}
    result, _output = run_here(pv_reclaim, given, monkeypatch, capsys, check_mode=True)
    assert (result["changed"], dest.exists()) == (True, False)
    result, _output = run_here(pv_reclaim, given, monkeypatch, capsys)
    assert [(one["name"], one["state"]) for one in result["volumes"]] == [("a", "changed")]
    assert (result["unchanged"], result["dest"]) == (["b"], str(dest))
    lines = [json.loads(line) for line in dest.read_text().splitlines()]
    assert [(one["name"], one["state"]) for one in lines] == [("a", "changed"), ("b", "unchanged")]
    assert dest.stat().st_mode & 0o777 == 0o600


def test_claims_that_do_not_grow_fail_the_module_with_all_of_them(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"host": cluster.url, "api_key": SECRET, "claims": [{"namespace": "shop", "name": "none"}], "size": "2Gi"}
    result, _output = run_here(pvc_expand, given, monkeypatch, capsys)
    assert result["msg"] == "1 of 1 claims are not as asked for: shop/none (gone) does not exist"
    assert (result["summary"], result["quotas"], result["changed"]) == ({"gone": 1}, [], False)
