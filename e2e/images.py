"""Container images for a node that can pull nothing: OCI archives of one layer, made without a builder."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from e2e import assets, environment
from e2e.settings import COREDNS_IMAGE, KUBERAY_IMAGE, PAUSE_IMAGE, TWINKLE_IMAGE

OCI = "application/vnd.oci.image"
ONE_PROGRAM = {
    PAUSE_IMAGE: ("pause", "/pause", ""),
    COREDNS_IMAGE: ("coredns", "/coredns", ""),
    KUBERAY_IMAGE: ("kuberay-operator", "/manager", "65532:65532"),
}
OPERATOR = ["python", "-m", "twinkle_operator"]  # Ray's pods bring a command of their own
# wget and ps: KubeRay's probes; python3 brings the libraries that an interpreter of the host needs, too.
PACKAGES = "ca-certificates,wget,procps,python3,libgomp1,libstdc++6"


def write_all(folder: Path) -> list[Path]:
    """Write the archives of all images of a node, a few seconds; the first time, Debian takes a minute more.

    Raises:
        AssetError: a program is missing, or debootstrap failed.
    """
    written = []
    for name, (program, inside, user) in ONE_PROGRAM.items():
        layer = folder / f"{program}.layer"
        with tarfile.open(layer, "w") as archive:
            archive.add(assets.program(program), inside, filter=_of_root)
        written.append(write(folder / f"{program}.tar", name, layer, {"Entrypoint": [inside], "User": user}))
        layer.unlink()
    run = {"Entrypoint": OPERATOR, "Env": environment.variables(), "WorkingDir": "/"}
    return [*written, write(folder / "twinkle.tar", TWINKLE_IMAGE, debian(), run)]


def debian() -> Path:
    """The layer of the image of Twinkle, made once and kept beside the programs."""
    layer = assets.cache() / f"debian-{release()}.layer"
    if not layer.exists():
        with tempfile.TemporaryDirectory(dir=assets.cache(), prefix="unfinished-") as work:
            root, unfinished = Path(work, "root"), Path(work, "layer")
            _debootstrap(root)
            owner = ["--sort=name", "--numeric-owner", "--owner=0", "--group=0"]
            subprocess.run(["tar", "-cf", str(unfinished), *owner, "-C", str(root), "."], check=True)
            unfinished.rename(layer)
    return layer


def release() -> str:
    """The code name of this machine's Debian; the image has the same, so that the host's programs run in it."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"].strip('"')


def _debootstrap(root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release(), str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise assets.AssetError(f"debootstrap {release()} failed: {' | '.join(ended.stdout.splitlines()[-3:])}")
    for place in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
        place.unlink()
    (root / "root").chmod(0o755)  # an interpreter may be mounted below it, for any user


def write(target: Path, name: str, layer: Path, run: dict[str, Any]) -> Path:
    """Write an image of one layer (a tar file) as an archive for `ctr images import`; returns `target`.

    Blobs are named by their digest, and an index begins the chain to them.
    """
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blobs: dict[str, bytes] = {}

    def described(content: object, kind: str) -> dict[str, object]:
        data = json.dumps(content).encode()
        hashed = hashlib.sha256(data).hexdigest()
        blobs[hashed] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{hashed}", "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    configuration = described(
        {"architecture": _architecture(), "os": "linux", "config": run, "rootfs": rootfs}, "config.v1+json"
    )
    layers = [{"mediaType": f"{OCI}.layer.v1.tar", "digest": f"sha256:{digest}", "size": layer.stat().st_size}]
    kind = "manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.{kind}", "config": configuration, "layers": layers}
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "manifests": [{**described(manifest, kind), "annotations": annotations}]}
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index).encode())
        for hashed, data in blobs.items():
            _add(archive, f"blobs/sha256/{hashed}", data)
        archive.add(layer, f"blobs/sha256/{digest}")
    return target


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _architecture() -> str:
    return subprocess.run(["go", "env", "GOARCH"], capture_output=True, text=True, check=True).stdout.strip()
