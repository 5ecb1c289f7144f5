# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules in processes of their own: what they return and print, and who gets to see a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

from ansible_collections.clusterkit.storage.tests.documentation import contradictions

from .world import PASSWORD, World, names

ROOT = Path(__file__).resolve().parents[2]


def execute(module: str, watch: Any = None, check_mode: bool = False, **arguments: Any) -> tuple[dict[str, Any], str]:
    """Run a module in a process of its own, as a managed host does; return its result, and all that it printed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.import_name import register; register()\n"
        "from ansible.module_utils import basic\n"
        "basic._ANSIBLE_ARGS = sys.stdin.buffer.read()\n"
        "basic._ANSIBLE_PROFILE = 'legacy'\n"
        "import importlib\n"
        "importlib.import_module('ansible_collections.clusterkit.storage.plugins.modules.' + sys.argv[2]).main()\n"
    )
    options = {**arguments, "_ansible_check_mode": check_mode, "_ansible_diff": True}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT), module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
        process.stdin.close()
        while watch is not None and process.poll() is None:
            watch()
        said = process.stdout.read()
    result = json.loads(said)
    assert contradictions(module, result) == []
    return result, said


def test_password_is_seen_nowhere(restic_world: World) -> None:
    """Not in the result, in check mode, in arguments and environments of processes, in files, or in the progress."""
    world = restic_world
    (world.volume / "a").write_bytes(os.urandom(4 << 20))
    secret = token_hex(8)
    seen: list[str] = []
    looked = set()

    def watch() -> None:
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) != os.getpid():
                for name in ("cmdline", "environ"):
                    try:
                        content = (place / name).read_bytes()
                    except OSError:
                        continue
                    if content.startswith(b"restic\0"):
                        looked.add(name)
                    if secret.encode() in content:
                        seen.append(f"{place}/{name}: {content!r}")
        time.sleep(0.01)

    arguments: dict[str, Any] = {
        "engine": "restic",
        "repository": f"{world.backup}/repository",
        "password": secret,
        "environment": {"AWS_SECRET_ACCESS_KEY": "5Xw-other-Pm9"},
        "create": True,
        "volumes": [world.item()],
        "progress_file": world.settings.progress_file,
        "progress_interval": 1,
        "bandwidth": 8192,
    }
    for check_mode in (True, False):
        result, said = execute("volume_backup", watch, check_mode, **arguments)
        assert not result.get("failed"), said
        assert secret not in said and "5Xw-other-Pm9" not in said
    assert looked and not seen
    arguments.pop("create")
    result, said = execute(
        "volume_backup", None, False, **{**arguments, "repository": f"rest:http://u:{secret}@127.0.0.1:9/"}
    )
    assert result["failed"] and secret not in said
    assert "://***@127.0.0.1:9/" in said or "********" in said
    for path in [*Path("/run/clusterkit.storage").rglob("*"), *world.folder.rglob("*")]:
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_modules_return_what_they_say(world: World) -> None:
    (world.volume / "a").write_text("a")
    where: dict[str, Any] = {"engine": world.engine, "repository": world.settings.repository}
    if world.engine == "restic":
        where["password"] = PASSWORD
    quiet: dict[str, Any] = {"progress_file": "", "nice": 0, "ionice": "none"}
    made, _ = execute("volume_backup", **where, **quiet, create=True, volumes=[world.item()], retention={"last": 3})
    assert made["changed"] and made["created"] and made["volumes"][0]["generation"]
    refused, _ = execute("volume_backup", **where, volumes=[world.item(server_dir="relative", name="../x")])
    assert len(refused["problems"]) == 2
    found, _ = execute("volume_backup_info", **where, objects="all")
    assert len(found["generations"]) == 1 and found["generations"][0]["objects"]["items"]
    target = {"name": "pv-1", "namespace": "web", "server_dir": str(world.share / "new")}
    back, said = execute("volume_restore", **where, **quiet, volumes=[target])
    assert back["changed"] and names(world.share / "new") == ["a"], said
    good, _ = execute("volume_backup_verify", **where, **quiet, scratch=str(world.folder / "scratch"))
    assert good["volumes"][0]["files"] and not good["changed"] and names(world.folder / "scratch") == []
    inside, _ = execute(
        "volume_backup", **{**where, "repository": str(world.volume / "backup")}, volumes=[world.item()], create=True
    )
    assert "lie in one another" in inside["problems"][0]
