# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules from end to end: arguments in, documented results out, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils import _plan
from ansible_collections.clusterkit.storage.plugins.modules import volume_dirs, volume_dirs_info
from ansible_collections.clusterkit.storage.tests.module_process import documented, execute
from ansible_collections.clusterkit.storage.tests.server_disk import CLUSTER, fill


@pytest.fixture
def share(tmp_path: Path) -> Path:
    path = tmp_path / "k8s"
    path.mkdir()
    # There already: it would not be made anywhere else, whatever this machine exports.
    (path / ".clusterkit").mkdir(0o700)
    return path


def test_documentation_agrees_with_the_argument_spec() -> None:
    for module, code in (
        (volume_dirs, volume_dirs._volume_dirs),
        (volume_dirs_info, volume_dirs_info._volume_dirs_info),
    ):
        assert documented(yaml.safe_load(module.DOCUMENTATION)["options"]) == code.ARGUMENTS


def step(share: Path, directory: Path, **more: Any) -> dict[str, Any]:
    found = directory.stat()
    precondition = {"device": found.st_dev, "inode": found.st_ino}
    return {"id": "1", "share": str(share), "directory": str(directory), "precondition": precondition, **more}


def test_there_and_back(share: Path) -> None:
    volume = share / "volume"
    fill(volume)
    shares = [str(share)]
    common: dict[str, Any] = {"shares": shares, "cluster_uid": CLUSTER, "allow_unknown_open_state": True}
    assert execute("volume_dirs", state="present", shares=shares, clusters=[CLUSTER])["changed"]
    assert not execute("volume_dirs", state="present", shares=shares, clusters=[CLUSTER])["changed"]
    steps = [step(share, volume, reason="test")]
    predicted = execute("volume_dirs", state="quarantined", steps=steps, **common, _ansible_check_mode=True)
    assert predicted["changed"] and volume.exists()
    done = execute("volume_dirs", state="quarantined", steps=steps, **common, _ansible_diff=True)
    assert done["changed"] and not volume.exists() and done["summary"]["changed"] == 1
    assert done["diff"]["before"].startswith(f"{volume} (inode ")
    found = execute("volume_dirs_info", shares=shares)
    (entry,) = found["quarantined"]
    back = {"share": str(share), "entry": entry["entry"], "precondition": {k: entry[k] for k in ("device", "inode")}}
    early = execute("volume_dirs", state="purged", steps=[back], **common)
    assert early["failed"] and "the retention is 14.0 days" in early["msg"]
    dest = share.parent / "result.jsonl"
    done = execute("volume_dirs", state="restored", steps=[back], **common, dest=str(dest))
    assert done["changed"] and (volume / "file").exists()
    assert json.loads(dest.read_text())["state"] == "changed"


def test_a_plan_and_its_result(share: Path) -> None:
    good, bad = share / "good", share / "bad\udcff"
    for path in (good, bad):
        path.mkdir()
    steps = [step(share, path, module="volume_dirs", state="quarantined") for path in (good, bad)]
    steps[1]["precondition"]["inode"] += 1
    made = {"schema": 1, "action": "cleanup", "cluster_uid": CLUSTER, "steps": steps}
    plan = share.parent / "plan.json"
    plan.write_text(json.dumps({"id": _plan.hash_of(made), **made}))
    execute("volume_dirs", state="present", shares=[str(share)], clusters=[CLUSTER])
    done = execute(
        "volume_dirs", state="quarantined", shares=[str(share)], plan=str(plan), allow_unknown_open_state=True
    )
    assert (
        done["failed"] and done["changed"] and [item["state"] for item in done["directories"]] == ["changed", "stale"]
    )
    assert done["plan_id"] == _plan.hash_of(made)
    lines = [json.loads(line) for line in Path(done["dest"]).read_text().splitlines()]
    assert [line["state"] for line in lines] == ["changed", "stale"]
    assert lines[1]["directory"] == str(bad)
    again = execute(
        "volume_dirs", state="quarantined", shares=[str(share)], plan=str(plan), allow_unknown_open_state=True,
        dest=str(share.parent / "no/such/folder"),
    )  # fmt: skip
    assert [item["state"] for item in again["directories"]] == ["unchanged", "stale"], again
    assert any("could not be written" in str(warning) for warning in again["warnings"]), again


def test_wrong_arguments(share: Path) -> None:
    failed = execute("volume_dirs", state="quarantined", shares=[str(share)], steps=[])
    assert not failed.get("failed") and not failed["changed"]
    failed = execute("volume_dirs", state="quarantined", shares=["srv"], steps=[])
    assert failed["msg"].startswith("a problem, nothing was changed: shares[0]: ")
    failed = execute("volume_dirs_info", shares=[str(share / "missing")])
    assert "No such file" in failed["msg"]


def test_listing_into_a_file(share: Path) -> None:
    (share / "a").mkdir()
    result = execute("volume_dirs_info", shares=[str(share)], dest=str(share.parent / "out.jsonl"), size=True)
    assert result["dest"] == str(share.parent / "out.jsonl") and result["counts"]["directories"] == 1
    assert not result["changed"]
