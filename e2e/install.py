"""What runs on the node beside the control plane: KubeRay's operator, and ours from its chart."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from e2e import assets
from e2e.node import NodeError, kubectl
from e2e.settings import ADMIN, KUBERAY_IMAGE, WORK

KUBERAY_NAMESPACE = "kuberay-system"
# Not --for=condition=Established: kubectl gives up on a CRD so new that it has no conditions at all.
ESTABLISHED = '--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True'


def kuberay() -> None:
    """KubeRay's operator with its own manifests, in a pod; returns when it is available.

    The operator does not ask again for kinds it did not find when it started: its CRDs are Established before.
    """
    kubectl("apply", "--server-side", f"--filename={assets.kuberay() / 'crd' / 'bases'}")
    kubectl("wait", ESTABLISHED, "--timeout=30s", "crd", "--all")
    kubectl("create", "namespace", KUBERAY_NAMESPACE)
    folder = WORK / "kuberay"
    shutil.copytree(assets.kuberay(), folder / "config")
    name, _, tag = KUBERAY_IMAGE.rpartition(":")
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": KUBERAY_NAMESPACE,
        "resources": ["config/rbac", "config/manager"],
        "images": [{"name": "kuberay/operator", "newName": name, "newTag": tag}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(content))
    kubectl("apply", "--server-side", f"--kustomize={folder}")
    available("kuberay-operator", KUBERAY_NAMESPACE)


def chart(release: str, path: Path, namespace: str, values: Sequence[Path] = ()) -> None:
    """Install a chart with these files of values, in a namespace of its own.

    Raises:
        NodeError: helm failed.
    """
    command = [str(assets.program("helm")), f"--kubeconfig={ADMIN}", "install", release, str(path)]
    command += [f"--namespace={namespace}", "--create-namespace", *(f"--values={file}" for file in values)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:
        raise NodeError(f"helm install {release} failed: {ended.stderr.strip()}")


def available(deployment: str, namespace: str, within_s: int = 120) -> None:
    """Wait until a deployment has all its pods ready."""
    kubectl(
        f"--namespace={namespace}",
        "rollout",
        "status",
        f"deployment/{deployment}",
        f"--timeout={within_s}s",
        timeout_s=within_s + 10,
    )
