#!/usr/bin/env python3
"""Builds the programs that the cluster tests run beside rolecall: etcd, kube-apiserver, kube-controller-manager, kubectl,
helm, kstatus and Flux's kustomize-controller, and copies the CRDs of Flux out of its modules.

Each comes from a small Go module under `tests/cluster/tools/`, is built once and kept under
`${XDG_CACHE_HOME:-~/.cache}/rolecall/cluster/<module>-<hash of go.mod, go.sum and the sources>/`. When
`KUBEBUILDER_ASSETS` is set, etcd, kube-apiserver and kubectl are taken from there. `--only NAME…` builds only these.
Prints one `NAME=PATH` line per variable; everything else goes to standard error. Standard library only.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODULES = os.path.join(ROOT, "tests", "cluster", "tools")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "rolecall", "cluster")


def version_of(module, path):
    """The version of `path` required by a module's go.mod."""
    with open(os.path.join(MODULES, module, "go.mod"), encoding="utf-8") as file:
        match = re.search(rf"^(?:require\s+|\s+){re.escape(path)} (v\S+)", file.read(), re.MULTILINE)
    if not match:
        sys.exit(f"{module}/go.mod does not require {path}")
    return match[1]


def binaries():
    """(module, binary, package, ldflags), in the order in which they build fastest."""
    kubernetes = version_of("kubernetes", "k8s.io/kubernetes")
    major, minor, _ = kubernetes.lstrip("v").split(".")
    stamp = " ".join(f"-X k8s.io/component-base/version.{name}={value}"
                     for name, value in (("gitVersion", kubernetes), ("gitMajor", major), ("gitMinor", minor)))
    helm = version_of("delivery", "helm.sh/helm/v3")
    return [
        ("delivery", "helm", "helm.sh/helm/v3/cmd/helm", f"-X helm.sh/helm/v3/internal/version.version={helm}"),
        ("kubernetes", "etcd", "go.etcd.io/etcd/server/v3", ""),
        ("kubernetes", "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", stamp),
        ("kubernetes", "kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", stamp),
        ("kubernetes", "kubectl", "k8s.io/kubernetes/cmd/kubectl", stamp),
        ("kstatus", "kstatus", ".", ""),
        ("delivery", "kustomize-controller", "github.com/fluxcd/kustomize-controller", ""),
    ]


# Folders with CRDs: name -> module, and the Go module whose `config/crd/bases` it is a copy of.
CRDS = {
    "kustomize-crds": ("delivery", "github.com/fluxcd/kustomize-controller"),
    "source-crds": ("source", "github.com/fluxcd/source-controller"),
}


def home(module):
    """The folder of a module's binaries. Every change of the module gives another folder."""
    digest = hashlib.sha256()
    folder = os.path.join(MODULES, module)
    for name in sorted(os.listdir(folder)):
        if name in ("go.mod", "go.sum") or name.endswith(".go"):
            with open(os.path.join(folder, name), "rb") as file:
                digest.update(name.encode() + b"\0" + file.read())
    return os.path.join(CACHE, f"{module}-{digest.hexdigest()[:12]}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def need_go():
    if not shutil.which("go"):
        sys.exit("`go` was not found: install Go 1.26 or later (https://go.dev/dl), or set KUBEBUILDER_ASSETS, then try again")


def build(module, binary, package, ldflags):
    """Builds one binary into the cache, unless it exists there. Returns its path."""
    target = os.path.join(home(module), binary)
    if os.path.exists(target):
        return target
    need_go()
    os.makedirs(home(module), exist_ok=True)
    say(f"building {binary} once into {home(module)}")
    started = time.monotonic()
    unfinished = f"{target}.{os.getpid()}"
    subprocess.run(
        ["go", "build", "-trimpath", "-o", unfinished, "-ldflags", f"-s -w {ldflags}", package],
        cwd=os.path.join(MODULES, module), env={**os.environ, "CGO_ENABLED": "0"}, stdout=sys.stderr, check=True,
    )
    os.rename(unfinished, target)
    say(f"built {binary} in {time.monotonic() - started:.0f} s")
    return target


def copy_crds(module, path):
    """Copies the CRDs of a Go module into the cache, unless they exist there. Returns the folder. Nothing is built."""
    target = os.path.join(home(module), "crds")
    if os.path.isdir(target):
        return target
    need_go()
    # Verifies downloads against the module's go.sum.
    downloaded = subprocess.run(["go", "mod", "download", "-json", path], cwd=os.path.join(MODULES, module),
                                stdout=subprocess.PIPE, text=True, check=True)
    bases = os.path.join(json.loads(downloaded.stdout)["Dir"], "config", "crd", "bases")
    unfinished = f"{target}.{os.getpid()}"
    os.makedirs(unfinished)
    for name in os.listdir(bases):
        # Contents without permissions: files in the module cache are read-only.
        shutil.copyfile(os.path.join(bases, name), os.path.join(unfinished, name))
    try:
        os.rename(unfinished, target)
    except OSError:
        # Another run was faster.
        shutil.rmtree(unfinished)
    return target


def main():
    every = binaries()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[binary for _, binary, _, _ in every],
                        help="only these, such as helm; the CRDs of Flux come with kustomize-controller")
    only = parser.parse_args().only
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    paths = {}
    for module, binary, package, ldflags in every:
        if only and binary not in only:
            continue
        given = os.path.join(assets, binary) if assets else ""
        # A folder of assets may lack a controller manager: missing programs are built.
        paths[binary] = given if given and os.path.exists(given) else build(module, binary, package, ldflags)
    if "kustomize-controller" in paths:
        paths.update((name, copy_crds(module, path)) for name, (module, path) in CRDS.items())
    for name, path in paths.items():
        print(f"ROLECALL_TEST_{name.upper().replace('-', '_')}={path}")


if __name__ == "__main__":
    main()
