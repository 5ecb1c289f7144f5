# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of the server's modules: what the documentation promises is what the code takes and gives."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.filter import nfs_server
from ansible_collections.clusterkit.storage.plugins.modules import (
    nfs_directories,
    nfs_exports,
    nfs_exports_info,
    nfs_service,
)
from ansible_collections.clusterkit.storage.tests.module_process import documented, execute

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("module", [nfs_exports, nfs_directories, nfs_service])
def test_documentation_agrees_with_the_argument_spec(module: ModuleType) -> None:
    assert documented(yaml.safe_load(module.DOCUMENTATION)["options"]) == module.ARGUMENT_SPEC


@pytest.mark.parametrize("module", [nfs_exports, nfs_directories, nfs_exports_info, nfs_service])
def test_examples_and_return_values_are_yaml(module: ModuleType) -> None:
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)


def test_the_role_takes_what_the_modules_take() -> None:
    """An option that only one of them knows would be refused, or could not be reached."""
    role = yaml.safe_load((ROOT / "roles/nfs_server/meta/argument_specs.yml").read_text())["argument_specs"]["main"]

    def plain(options: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, option in options.items():
            found[name] = {key: value for key, value in option.items() if key != "description"}
            if "options" in option:
                found[name]["options"] = plain(option["options"])
        return found

    options = plain(role["options"])
    for name, spec in (
        ("nfs_server_directories", nfs_directories.ARGUMENT_SPEC["directories"]),
        ("nfs_server_exports", nfs_exports.ARGUMENT_SPEC["exports"]),
        ("nfs_server_ports", nfs_service.ARGUMENT_SPEC["ports"]),
    ):
        assert isinstance(spec, dict)
        assert options[name]["options"] == spec["options"]
    assert options["nfs_server_exports_file"] == nfs_exports.ARGUMENT_SPEC["file"]
    for name in ("threads", "versions", "allow_restart", "firewall"):
        assert options[f"nfs_server_{name}"] == nfs_service.ARGUMENT_SPEC[name]


def test_the_defaults_of_the_role_are_those_of_its_argument_specs() -> None:
    role = yaml.safe_load((ROOT / "roles/nfs_server/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    defaults = yaml.safe_load((ROOT / "roles/nfs_server/defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in role["options"].items()} == defaults


def test_directories_from_end_to_end(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    mine = {"path": f"{tmp_path}/a", "owner": str(tmp_path.stat().st_uid), "group": str(tmp_path.stat().st_gid)}
    predicted = execute("nfs_directories", directories=[{**mine, "mode": "0777"}], _ansible_check_mode=True)
    assert predicted["changed"]
    assert not (tmp_path / "a").exists()
    assert execute("nfs_directories", directories=[{**mine, "mode": "0777"}])["changed"]
    assert not execute("nfs_directories", directories=[{**mine, "mode": "0777"}])["changed"]
    failed = execute("nfs_directories", directories=[{**mine, "mode": 777}])
    assert failed["problems"][0].startswith("directories[0].mode: 777 is a number")


def test_exports_refuse_from_end_to_end(tmp_path: Path) -> None:
    exports = [{"path": str(tmp_path), "clients": [{"host": "*", "options": "rww,sync"}]}]
    failed = execute("nfs_exports", exports=exports, _ansible_check_mode=True)
    assert failed["failed"]
    assert not failed["changed"]
    assert len(failed["problems"]) == 2
    assert all(problem in failed["msg"] for problem in failed["problems"])


def test_info_from_end_to_end() -> None:
    result = execute("nfs_exports_info", timeout=2)
    documented_values = set(yaml.safe_load(nfs_exports_info.RETURN))
    assert documented_values <= set(result)
    assert set(result) <= documented_values | {"changed", "invocation"}


def test_the_filters_say_on_the_controller_what_the_modules_would_say() -> None:
    exports = [{"path": "nfs", "clients": [{"host": "*", "options": "rww,sync"}]}]
    assert [problem.partition(":")[0] for problem in nfs_server.export_problems(exports)] == [
        *("exports[0].path", "exports[0].clients[0].host", "exports[0].clients[0].options")
    ]
    assert len(nfs_server.export_problems(exports, allow_world=True)) == 2
    assert nfs_server.FilterModule().filters()["directory_problems"]([{"path": "/a", "mode": 511}, {"path": "b"}]) == [
        'directories[0].mode: 511 is a number, and YAML may have converted it; write it in quotes, such as "0755" '
        '(this is "0777")',
        'directories[1].path: "b" is not an absolute path',
    ]
