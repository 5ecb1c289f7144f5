# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of NFS clients from arguments to result, where that changes nothing on this host."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils import _recover_host
from ansible_collections.clusterkit.storage.plugins.modules import nfs_mounts, nfs_mounts_info, nfs_probe, nfs_recover
from ansible_collections.clusterkit.storage.tests.documentation import contradictions
from ansible_collections.clusterkit.storage.tests.module_process import differing_options, run_here


def run(
    module: ModuleType,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    check_mode: bool = False,
) -> dict[str, Any]:
    result, _output = run_here(module, arguments, monkeypatch, capsys, check_mode=check_mode)
    assert contradictions(module.__name__.rpartition(".")[2], result) == []
    return result


@pytest.mark.parametrize("module", [nfs_mounts, nfs_mounts_info, nfs_probe, nfs_recover])
def test_the_documented_options_are_those_that_exist(module: ModuleType) -> None:
    assert differing_options(yaml.safe_load(module.DOCUMENTATION)["options"], module.ARGUMENTS) == []


@pytest.mark.parametrize("check_mode", [True, False])
def test_wrong_mounts_are_all_named_and_nothing_is_done(
    check_mode: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_mounts.Runner, "apply", None)
    wrong = {
        "mounts": [{"path": "data", "src": "nfs1:/srv"}, {"path": "/data", "src": "nfs1:/srv", "options": ["sofft"]}],
        "mount_defaults": [{"options": ["hrad"]}],
    }
    result = run(nfs_mounts, wrong, monkeypatch, capsys, check_mode=check_mode)
    assert result["failed"]
    assert result["problems"] == [
        'mounts[0].path: "data" is not an absolute path',
        'mounts[1].options: "sofft" is not an option of nfs(5) or mount(8); did you mean "soft"?',
        'mount_defaults[0].options: "hrad" is not an option of nfs(5) or mount(8); did you mean "hard"?',
    ]


def test_an_unknown_owner_is_named_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_mounts.Runner, "apply", None)
    mounts = [{"path": "/data", "src": "nfs1:/srv", "owner": "nobody-of-that-name", "group": "4711"}]
    result = run(nfs_mounts, {"mounts": mounts}, monkeypatch, capsys)
    assert 'mounts[0].owner: there is no owner "nobody-of-that-name" here' in result["problems"]
    assert not any("group" in problem for problem in result["problems"])


def test_check_mode_predicts_on_a_host_without_an_nfs_client(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_mounts.Machine, "run", None)
    monkeypatch.setattr(nfs_mounts.Machine, "can_mount_nfs", lambda _self: False)
    path = "/no/such/mount point"
    mounts = [{"path": path, "src": "nfs1:/srv", "options": ["hard"]}]
    result = run(nfs_mounts, {"mounts": mounts}, monkeypatch, capsys, check_mode=True)
    assert result["changed"]
    assert result["mounts"][0]["actions"] == ["make the mount point", "mount nfs1:/srv", "add its line in /etc/fstab"]
    assert result["diff"][0]["after"].endswith("nfs1:/srv /no/such/mount\\040point nfs hard 0 0\n")


def test_without_an_nfs_client_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_mounts.Runner, "apply", None)
    monkeypatch.setattr(nfs_mounts.Machine, "can_mount_nfs", lambda _self: False)
    result = run(nfs_mounts, {"mounts": [{"path": "/data", "src": "nfs1:/srv"}]}, monkeypatch, capsys)
    assert "mount.nfs is not installed here" in result["msg"]


def test_wrong_targets_are_all_named_and_nothing_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_probe._nfs_probe, "probe_all", None)
    targets = [{"server": "nfs1", "path": "srv"}, {"server": "", "path": "/srv"}]
    result = run(nfs_probe, {"targets": targets}, monkeypatch, capsys)
    assert result["failed"]
    assert len(result["problems"]) == 2


def test_a_probe_in_check_mode_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(nfs_probe._nfs_probe, "probe_all", None)
    result = run(nfs_probe, {"targets": [{"server": "nfs1", "path": "/srv"}]}, monkeypatch, capsys, check_mode=True)
    assert result["skipped"]
    assert not result["changed"]


def test_one_unusable_export_fails_the_task_and_all_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [{"ok": True, "msg": ""}, {"ok": False, "msg": "nfs1:/b: no answer"}]
    monkeypatch.setattr(nfs_probe._nfs_probe, "probe_all", lambda _targets, _timeout: results)
    result = run(nfs_probe, {"targets": [{"server": "nfs1", "path": "/a"}] * 2}, monkeypatch, capsys)
    assert result["failed"]
    assert result["msg"] == "nfs1:/b: no answer"
    assert result["targets"] == results


def test_the_mounts_of_this_host_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = nfs_mounts_info._mounts_info.MountChecks
    monkeypatch.setattr(nfs_mounts_info._mounts_info, "MountChecks", lambda: checks(str(tmp_path / "lock")))
    for check_mode in (True, False):
        result = run(nfs_mounts_info, {}, monkeypatch, capsys, check_mode=check_mode)
        assert not result.get("failed")
        assert not result["changed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"timeout": 0}, "timeout: must be more than 0"), ({"kubelet_root": "kubelet"}, "is not an absolute path")],
)
def test_wrong_arguments_of_the_listing_are_refused(
    arguments: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in run(nfs_mounts_info, arguments, monkeypatch, capsys)["msg"]


def test_a_mount_table_that_cannot_be_read_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(13, "Permission denied", "/run/lock")

    monkeypatch.setattr(nfs_mounts_info._mounts_info, "look", fail)
    result = run(nfs_mounts_info, {}, monkeypatch, capsys)
    assert "the mounts cannot be looked at: [Errno 13] Permission denied" in result["msg"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_step_to_recover_whose_mount_is_gone_changes_nothing(
    check_mode: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nfs_recover.Machine, "run", None)
    precondition = {"mount_id": 2**31 - 1, "major_minor": "0:999"}
    step = {
        "id": "1",
        "item": "a",
        "action": "lazy",
        "path": "/no/such",
        "source": "s:/x",
        "precondition": precondition,
    }
    result = run(nfs_recover, {"steps": [step], "pods": ["u"]}, monkeypatch, capsys, check_mode=check_mode)
    assert not result["changed"]
    assert result["steps"][0]["state"] == "gone"
    assert result["pods"] == [{"uid": "u", "mounts": [], "processes": []}]


def test_steps_to_recover_that_failed_fail_the_task_and_all_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def apply(_self: Any, given: list[dict[str, Any]]) -> list[_recover_host.Step]:
        return [_recover_host.Step(one, "stale" if n else "done", "moved" if n else "") for n, one in enumerate(given)]

    monkeypatch.setattr(nfs_recover.Runner, "apply", apply)
    precondition = {"mount_id": 7, "major_minor": "0:50"}
    steps = [
        {"id": n, "item": n, "action": "lazy", "path": f"/{n}", "source": "s:/x", "precondition": precondition}
        for n in ("a", "b")
    ]
    result = run(nfs_recover, {"steps": steps}, monkeypatch, capsys)
    assert (result["failed"], result["msg"], result["changed"]) == (True, "/b (stale): moved", True)
    assert [one["state"] for one in result["steps"]] == ["done", "stale"]
