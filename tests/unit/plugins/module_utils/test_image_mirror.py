# SPDX-License-Identifier: GPL-3.0-or-later
"""What skopeo is asked for, and what becomes of its answers. The real one: tests/integration/cluster/test_mirror.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _image_mirror

# Images are files below $STORE, named by digest of nothing in particular: what matters are the calls.
SKOPEO = """\
#!/bin/sh
echo "$@" >> "$STORE/calls"
for one in "$@"; do
  case "$one" in --*authfile=*) cat "${one#*authfile=}" >> "$STORE/auth" ;; esac
done
for last in "$@"; do before=$image; image=${last#docker://}; done
if [ "$1" = inspect ]; then
  [ -e "$STORE/$(echo "$image" | tr / _)" ] || { echo "$(cat "$STORE/says")" >&2; exit 1; }
  cat "$STORE/$(echo "$image" | tr / _)"
elif [ "${last#dir:}" != "$last" ]; then
  [ ! -e "$STORE/damaged" ] || { echo 'time="x" level=fatal msg="blob \\"a\\" is missing"' >&2; exit 1; }
  cp "$STORE/$(echo "$before" | tr / _)" "${last#dir:}/manifest.json"
else
  cp "$STORE/$(echo "$before" | tr / _)" "$STORE/$(echo "$image" | tr / _)"
fi
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/skopeo").write_text(SKOPEO)
    (tmp_path / "bin/skopeo").chmod(0o755)
    (tmp_path / "says").write_text("manifest unknown")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("STORE", str(tmp_path))
    return tmp_path


def mirror(*images: str, check: bool = False, **more: Any) -> dict[str, Any]:
    defaults = {name: one.get("default") for name, one in _image_mirror.ARGUMENTS.items()}
    given = {**defaults, "images": list(images), "registry": "r.example.org/m", **more}
    return _image_mirror.mirror(given, check_mode=check)


def states(found: dict[str, Any]) -> list[str]:
    return [one["state"] for one in found["images"]]


def test_only_what_is_missing_is_copied(store: Path) -> None:
    (store / "quay.io_a").write_text("a")
    (store / "quay.io_b").write_text("b")
    (store / "r.example.org_m_b").write_text("old")
    assert states(mirror("quay.io/a", "quay.io/b", check=True)) == ["copied", "present"]
    assert not (store / "r.example.org_m_a").exists()
    found = mirror("quay.io/a", "quay.io/b", "quay.io/a")
    assert states(found) == ["copied", "present"]
    assert found["changed"]
    assert found["images"][0]["target"] == "r.example.org/m/a"
    assert found["images"][0]["digest"].startswith(
        "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    )
    assert not mirror("quay.io/a")["changed"]
    assert states(mirror("quay.io/b", refresh=True)) == ["copied"]
    assert states(mirror("quay.io/b", refresh=True)) == ["present"]


def test_what_fails_is_named_and_the_others_are_done(store: Path) -> None:
    (store / "quay.io_a").write_text("a")
    found = mirror("quay.io/missing", "quay.io/a")
    assert states(found) == ["failed", "copied"]
    assert found["problems"] == ["quay.io/missing: manifest unknown"]
    (store / "damaged").touch()
    assert mirror("quay.io/a")["problems"] == ['quay.io/a: cannot be pulled from the registry: blob "a" is missing']


def test_a_registry_that_refuses_is_not_taken_for_an_empty_one(store: Path) -> None:
    (store / "quay.io_a").write_text("a")
    (store / "says").write_text('time="now" level=fatal msg="unauthorized: authentication required"')
    assert mirror("quay.io/a")["problems"] == ["quay.io/a: unauthorized: authentication required"]


def test_credentials_are_in_a_file_and_never_an_argument(store: Path) -> None:
    (store / "quay.io_a").write_text("a")
    mirror("quay.io/a", username="me", password="not-for-logs", tls_verify=False)  # noqa: S106 (nobody's)
    calls = (store / "calls").read_text()
    assert "not-for-logs" not in calls
    assert "--dest-tls-verify=false" in calls
    assert "--all" in calls
    auth = json.JSONDecoder().raw_decode((store / "auth").read_text())[0]
    assert list(auth["auths"]) == ["r.example.org"]
    (store / "own.json").write_text("{}")
    (store / "source.json").write_text("{}")
    assert mirror("quay.io/a", authfile=str(store / "own.json"), source_authfile=str(store / "source.json"))["images"]
    left = (store / "calls").read_text().replace(calls, "")
    assert f"--authfile={store / 'own.json'}" in left


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": ["a b"]}, 'images[0]: "a b" is not the name of an image'),
        ({"images": ["--help"]}, "is not the name of an image"),
        ({"registry": "http://r"}, 'registry: "http://r" is not a registry'),
        ({"username": "me"}, "username and password belong together"),
        ({"username": "me", "password": "x", "authfile": "/a"}, "exclude each other"),
    ],
)
def test_wrong_input_is_refused_before_skopeo_runs(store: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        mirror(*given.pop("images", ["quay.io/a"]), **given)
    assert words in str(error.value)
    assert not (store / "calls").exists()


def test_without_skopeo_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="its package is called skopeo"):
        mirror("quay.io/a")
