"""What runs on the node beside the control plane: KubeRay's operator, and ours from its chart.

python -m e2e.install      both, on a node that is up
"""

from __future__ import annotations

import json
import shutil
import subprocess

from e2e import assets
from e2e.environment import REPOSITORY
from e2e.journal import objects, until
from e2e.node import NodeError, kubectl
from e2e.settings import ADMIN, KUBERAY_IMAGE, WORK

KUBERAY_NAMESPACE = "kuberay-system"
RELEASE, OPERATOR_NAMESPACE = "twinkle", "twinkle-system"
CHART = REPOSITORY / "charts" / "twinkle-operator"
VALUES = REPOSITORY / "e2e" / "values.yaml"


def kuberay() -> None:
    """KubeRay's operator with its own manifests, in a pod; returns when it is available.

    The operator does not ask again for kinds it did not find when it started: its CRDs are Established before.
    """
    kubectl("apply", "--server-side", f"--filename={assets.kuberay() / 'crd' / 'bases'}")
    until(90, "every CRD of KubeRay", _all_established)  # kubectl wait breaks off at one that has no status yet
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


def operator() -> None:
    """Twinkle's operator by helm, in a namespace of its own; returns when it is available.

    Raises:
        NodeError: helm failed, or the operator does not come up.
    """
    command = [str(assets.program("helm")), f"--kubeconfig={ADMIN}", "install", RELEASE, str(CHART)]
    command += [f"--namespace={OPERATOR_NAMESPACE}", "--create-namespace", f"--values={VALUES}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode:
        raise NodeError(f"helm install {RELEASE} failed: {ended.stderr.strip()}")
    available(f"{RELEASE}-twinkle-operator", OPERATOR_NAMESPACE)


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


def _all_established() -> bool:
    kept = [crd.get("status", {}).get("conditions") or [] for crd in objects("crd")]
    return all(any(it["type"] == "Established" and it["status"] == "True" for it in each) for each in kept)


if __name__ == "__main__":
    kuberay()
    operator()
