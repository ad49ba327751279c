"""The programs of a real Kubernetes, built once from Go modules and kept outside the tree.

    python3 -m e2e.assets api        what `tests/kube` needs: etcd, kube-apiserver, kubectl, helm, KubeRay's CRDs
    python3 -m e2e.assets cluster    and what a node needs: controller-manager, scheduler, kubelet, kube-proxy, ...

Each folder beside this file with a `go.mod` pins one project and its dependencies. What they build lies in
`$TWINKLE_KUBE_CACHE` (by default `~/.cache/twinkle/kube`), in a folder named after the pins, so that another version
never meets an old file. A program appears there by one rename: it is whole or absent. Programs that a folder named by
`$KUBEBUILDER_ASSETS` holds are taken from there and not built.

Standard library only: it runs before there is a virtual environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_COMMANDS = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "helm": ("helm", "helm.sh/helm/v4/cmd/helm"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubelet": ("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "kube-proxy": ("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    "kuberay-operator": ("kuberay", "github.com/ray-project/kuberay/ray-operator"),
    "coredns": ("coredns", "github.com/coredns/coredns"),
    "pause": ("pause", "."),
}
KUBERAY = "github.com/ray-project/kuberay/ray-operator"
KUBERAY_MANIFESTS = "KubeRay's manifests"
PROMTOOL = "promtool"  # comes from Debian: `apt.sh`
API = ("etcd", "kube-apiserver", "kubectl", "helm", KUBERAY_MANIFESTS)
CLUSTER = (*GO_COMMANDS, KUBERAY_MANIFESTS)


class AssetError(RuntimeError):
    """A program is missing and cannot be built here; the message says what to do."""


def pinned(module: str) -> str:
    """The version of a Go module that the `go.mod` files beside this one pin, such as `v1.34.4`."""
    for file in sorted(HERE.glob("*/go.mod")):
        found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", file.read_text(), re.MULTILINE)
        if found:
            return found[1]
    raise AssetError(f"no go.mod under {HERE} requires {module}")


def cache() -> Path:
    """The folder of these versions on this kind of machine; it need not exist."""
    root = os.environ.get("TWINKLE_KUBE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinkle" / "kube"
    digest = hashlib.sha256(f"{sys.platform} {platform.machine()}".encode())
    for file in sorted((*HERE.glob("*/go.*"), *HERE.glob("*/*.go"))):
        digest.update(str(file.relative_to(HERE)).encode() + b"\0" + file.read_bytes())
    return (Path(root) if root else base) / f"{pinned('k8s.io/kubernetes')}-{digest.hexdigest()[:12]}"


def find(name: str) -> Path | None:
    """Where a program lies: in `$KUBEBUILDER_ASSETS`, else in the cache (promtool: or installed); None if nowhere."""
    if name == KUBERAY_MANIFESTS:
        return kuberay() if kuberay().is_dir() else None
    given = os.environ.get("KUBEBUILDER_ASSETS")
    installed = shutil.which(name) if name == PROMTOOL else None
    places = [Path(place) for place in (given and f"{given}/{name}", cache() / "bin" / name, installed) if place]
    return next((place for place in places if place.is_file()), None)


def program(name: str) -> Path:
    """Like `find`, for callers that cannot go on without it.

    Raises:
        AssetError: it has not been built.
    """
    found = find(name)
    if found is None:
        target = "cluster-assets" if name in GO_COMMANDS and name not in API else "kube-assets"
        raise AssetError(f"{name} is neither in $KUBEBUILDER_ASSETS nor in {cache()}/bin: run 'make {target}'")
    return found


def kuberay() -> Path:
    """KubeRay's own manifests (`crd/bases`, `rbac`, ...), copied out of its Go module by `build`."""
    return cache() / "kuberay"


def missing(names: Sequence[str]) -> list[str]:
    """Which of these `build` would make."""
    return [name for name in names if find(name) is None]


def build(names: Sequence[str]) -> None:
    """Make whatever of these is missing; at once when nothing is. Two calls at a time wait for each other.

    Raises:
        AssetError: there is no Go, or a module cannot be downloaded or built.
    """
    if not missing(names):
        return
    if shutil.which("go") is None:
        raise AssetError(
            f"{', '.join(missing(names))} must be built, and there is no Go: "
            "install Go 1.26 or newer (https://go.dev/dl), or name a folder of envtest's programs in KUBEBUILDER_ASSETS"
        )
    with _alone(cache()) as unfinished:
        for name in missing(names):
            if name == KUBERAY_MANIFESTS:
                _copy_manifests(unfinished / "kuberay").rename(kuberay())
            else:
                _compile(name, unfinished / name)
                (unfinished / name).rename(cache() / "bin" / name)


@contextmanager
def _alone(place: Path) -> Iterator[Path]:
    """Hold the lock of a cache folder; yields a folder for unfinished work that is gone afterwards."""
    (place / "bin").mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(dir=place, prefix="unfinished-") as unfinished:
            yield Path(unfinished)


def _copy_manifests(target: Path) -> Path:
    """Copy KubeRay's `config` folder; what lies in Go's module cache is read-only and could not be moved."""
    shutil.copytree(_downloaded("kuberay", KUBERAY) / "config", target, copy_function=shutil.copyfile)
    for folder in (target, *(entry for entry in target.rglob("*") if entry.is_dir())):
        folder.chmod(0o755)
    return target


def _compile(name: str, target: Path) -> None:
    folder, package = GO_COMMANDS[name]
    print(f"building {name} ... ", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", f"-s -w {_version_flags(folder)}"]
    _go(folder, "build", *flags, "-o", str(target), package)
    print(f"{time.monotonic() - began:.0f} s, {target.stat().st_size / 1e6:.0f} MB", file=sys.stderr)


def _version_flags(folder: str) -> str:
    """Kubernetes and helm take their own version from the linker; a wrong one makes clients refuse the server."""
    if folder == "helm":
        return f"-X helm.sh/helm/v4/internal/version.version={pinned('helm.sh/helm/v4')}"
    if folder != "kubernetes":
        return ""
    version = pinned("k8s.io/kubernetes")
    major, minor, _ = version.lstrip("v").split(".")
    at = "-X k8s.io/component-base/version"
    return f"{at}.gitVersion={version} {at}.gitMajor={major} {at}.gitMinor={minor} {at}.gitTreeState=clean"


def _downloaded(folder: str, module: str) -> Path:
    """The folder of a module's sources. Proxies refuse some zips, and Go reports that in a field, too."""
    answer = json.loads(_go(folder, "mod", "download", "-json", module))
    if "Dir" not in answer:
        raise AssetError(f"Go could not download {module}: {answer.get('Error', 'no reason given')}")
    return Path(answer["Dir"])


def _go(folder: str, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    command = ["nice", "-n", "10", "go", *arguments]
    ended = subprocess.run(command, cwd=HERE / folder, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = "\n".join((ended.stderr.strip() or ended.stdout.strip()).splitlines()[-5:])
        raise AssetError(f"'go {' '.join(arguments[:2])}' failed in {HERE / folder}: {said}")
    return ended.stdout


def main(arguments: list[str]) -> int:
    sets = {"api": API, "cluster": CLUSTER}
    if len(arguments) != 1 or arguments[0] not in sets:
        print("usage: python3 -m e2e.assets api|cluster", file=sys.stderr)
        return 2
    try:
        build(sets[arguments[0]])
    except AssetError as error:
        print(error, file=sys.stderr)
        return 2
    print(cache() / "bin")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
