"""Training on KubeRay by hand, without our operator: a RayCluster of two device groups, and a RayJob that drives it.

    python -m e2e.plain        up, train, down
    python -m e2e.plain here   the same on a node that is up, and leave it

It shows that node, image, tokens and labels are right before an operator is blamed, and its two manifests are what the
operator's children can be compared with.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from e2e import assets, install, node
from e2e.journal import Journal, objects, until
from e2e.node import MANIFESTS, NodeError, kubectl
from e2e.settings import TWINKLE_IMAGE, WORK

LEARNED = 0.8
TRAINS_WITHIN_S = 400


def train(journal: Journal) -> None:
    """Apply both manifests and wait for the held-out reward.

    Raises:
        NodeError: the cluster or the job did not come so far in time, or the model did not learn.
    """
    kubectl("apply", f"--filename={MANIFESTS / 'volume.yaml'}")
    apply(MANIFESTS / "raycluster.yaml")
    kubectl("wait", "raycluster/plain", "--for=jsonpath={.status.state}=ready", "--timeout=200s", timeout_s=210)
    journal.say(
        f"RayCluster ready: {', '.join(pod['metadata']['name'] for pod in objects('pods', 'ray.io/cluster=plain'))}"
    )
    apply(MANIFESTS / "rayjob.yaml")
    until(TRAINS_WITHIN_S, "the end of the job", lambda: _status() in ("Complete", "Failed"))
    journal.keep(kubectl("logs", "--selector=job-name=plain-1", "--tail=-1"))
    if _status() == "Failed":
        raise NodeError(f"the job failed: {kubectl('get', 'rayjob/plain-1', '-o', 'jsonpath={.status.message}')}")
    results = sorted((WORK / "runs").glob("*/result.json"))
    if not results:
        raise NodeError(f"the job is Complete, but no run folder under {WORK / 'runs'} has a result.json")
    reward = json.loads(results[-1].read_text())["eval_reward_after"]
    journal.say(f"held-out reward {reward:.3f}")
    if reward < LEARNED:
        raise NodeError(f"the held-out reward is {reward:.3f} and not at least {LEARNED}")


def _status() -> str:
    return kubectl("get", "rayjob/plain-1", "-o", "jsonpath={.status.jobDeploymentStatus}")


def apply(file: Path) -> None:
    """Apply a manifest of Ray's whose containers are given the image of Twinkle."""
    made = json.loads(kubectl("create", "--dry-run=client", "-o", "json", f"--filename={file}"))
    for template in templates(made["spec"]):
        for container in template["spec"]["containers"]:
            container |= {"image": TWINKLE_IMAGE, "imagePullPolicy": "Never"}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(made))


def templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayCluster's or a RayJob's spec."""
    groups = [spec[key] for key in ("headGroupSpec",) if key in spec] + spec.get("workerGroupSpecs", [])
    own = [spec[key] for key in ("submitterPodTemplate",) if key in spec]
    return [*own, *(group["template"] for group in groups)]


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the node goes down, as after Ctrl-C
    journal = Journal(Path("/tmp/twinkle-e2e-plain.log"))
    try:
        if arguments != ["here"]:
            node.up()
            journal.say("node Ready")
            install.kuberay()
            journal.say("KubeRay available")
        train(journal)
    except (NodeError, assets.AssetError) as error:
        journal.say(f"FAILED: {error}; more in {journal.file}")
        journal.diagnose()
        return 1
    finally:
        if arguments != ["here"]:
            node.down()
            journal.say("node down, nothing left")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
