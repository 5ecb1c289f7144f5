# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes, etcd, containerd, Helm and the stand-in provisioner, built from Go modules; Debian's docker-registry."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lab import cache
from lab.command import require, run
from lab.progress import step
from lab.settings import ROOT, hash_of_files, pins

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE = ("kubelet", "kube-proxy")
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
PROVISIONER = ROOT / "lab" / "provisioner"

STATIC = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
# `-ldflags -s` leaves the tables for a debugger out of a program; not to compute them at all is quicker by a tenth.
NO_TABLES = "-gcflags=all=-dwarf=false"


def kubernetes(version: str) -> Path:
    """Folder with all programs of one Kubernetes version (x.y.z)."""

    def build(out: Path) -> None:
        require("go")
        log, module = out / "build.log", out / "module"
        module.mkdir()
        with step(f"build Kubernetes {version} from Go modules (8 to 10 min the first time)", log):
            _write_module(version, module)
            run(["go", "mod", "tidy"], cwd=module, env=STATIC, log=log)
            package = "k8s.io/component-base/version"
            flags = (
                f"-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor=1"
                f" -X {package}.gitMinor={version.split('.')[1]}"
            )
            # In one call, so that linking one, on one core, does not hold up the others.
            targets = [f"k8s.io/kubernetes/cmd/{name}" for name in CONTROL_PLANE + NODE]
            argv = ["go", "build", "-v", "-trimpath", NO_TABLES, "-ldflags", flags, "-o", f"{out}/", *targets]
            run(argv, cwd=module, env=STATIC, log=log)
        shutil.rmtree(module)

    return cache.entry("kubernetes", {"version": version, "recipe": 1}, build)


def _write_module(version: str, module: Path) -> None:
    """A module of our own that requires k8s.io/kubernetes.

    Its go.mod points the staging modules at ./staging, which the module proxy does not serve: the
    published ones carry the same minor.patch under v0.
    """
    found = json.loads(run(["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], cwd=module))
    upstream = Path(found["GoMod"]).read_text()
    go_line = re.search(r"^go .*$", upstream, re.MULTILINE)
    staging = sorted(set(re.findall(r"^\s*(k8s\.io/[a-z0-9-]+) => \./staging", upstream, re.MULTILINE)))
    lines = ["module lab/kubernetes", go_line[0] if go_line else "", f"require k8s.io/kubernetes v{version}"]
    lines += ["replace (", *(f"  {m} => {m} v0.{version.split('.', 1)[1]}" for m in staging), ")", ""]
    (module / "go.mod").write_text("\n".join(lines))
    imports = "\n".join(f'\t_ "k8s.io/kubernetes/cmd/{name}"' for name in CONTROL_PLANE + NODE)
    (module / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports}\n)\n")


def _tools(kind: str, module: str, version: str, programs: dict[str, str], tags: str, flags: str) -> Path:
    """Programs (name: package) of one Go module at one version."""

    def build(out: Path) -> None:
        require("go")
        log, work = out / "build.log", out / "module"
        work.mkdir()
        with step(f"build {kind} {version} from Go modules", log):
            run(["go", "mod", "init", f"lab/{kind}"], cwd=work, log=log)
            wanted = [f"{package}@v{version}" for package in programs.values()]
            run(["go", "get", "-tool", *wanted], cwd=work, env=STATIC, log=log)
            for name, package in programs.items():
                argv: list[str | Path] = [
                    "go",
                    "build",
                    "-v",
                    "-tags",
                    tags,
                    "-trimpath",
                    NO_TABLES,
                    "-ldflags",
                    f"-s -w {flags}",
                    "-o",
                    out / name,
                ]
                run([*argv, package], cwd=work, env=STATIC, log=log)
        shutil.rmtree(work)

    return cache.entry(kind, {"module": module, "version": version, "recipe": 1}, build)


def etcd() -> Path:
    module = "go.etcd.io/etcd/server/v3"
    return _tools("etcd", module, pins()["etcd"], {"etcd": module}, "", "")


def containerd() -> Path:
    """Debian 13 has containerd 1.7, which a kubelet of 1.36 or newer refuses."""
    module, version = "github.com/containerd/containerd/v2", pins()["containerd"]
    programs = {name: f"{module}/cmd/{name}" for name in CONTAINERD}
    tags = "no_btrfs no_devmapper no_zfs"
    return _tools("containerd", module, version, programs, tags, f"-X {module}/version.Version={version}")


def helm() -> Path:
    module, version = "helm.sh/helm/v3", pins()["helm"]
    flags = f"-X {module}/internal/version.version=v{version}"
    return _tools("helm", module, version, {"helm": f"{module}/cmd/helm"}, "", flags)


def registry() -> Path:
    """Folder with docker-registry. Debian's package would start a service; only its program is taken."""

    def build(out: Path) -> None:
        require("apt-get", "dpkg-deb")
        log = out / "build.log"
        with step("fetch Debian's docker-registry", log):
            run(["apt-get", "download", "docker-registry"], cwd=out, log=log)
            (package,) = out.glob("docker-registry_*.deb")
            run(["dpkg-deb", "--extract", package, out / "files"], log=log)
            (out / "files/usr/bin/docker-registry").rename(out / "docker-registry")
        shutil.rmtree(out / "files")
        package.unlink()

    return cache.entry("registry", {"package": "docker-registry", "recipe": 1}, build)


def provisioner() -> Path:
    """The stand-in for nfs-subdir-external-provisioner: see lab/provisioner/README.md."""

    def build(out: Path) -> None:
        require("go")
        log = out / "build.log"
        with step("build the stand-in provisioner", log):
            argv: list[str | Path] = [
                "go",
                "build",
                "-v",
                "-trimpath",
                NO_TABLES,
                "-ldflags",
                "-s -w",
                "-o",
                out / "provisioner",
                ".",
            ]
            run(argv, cwd=PROVISIONER, env={"CGO_ENABLED": "0"}, log=log)

    return cache.entry("provisioner", {"source": hash_of_files(PROVISIONER)}, build)
