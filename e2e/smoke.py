"""One run for real: the quickstart on a Kubernetes of this machine, then one that loses its head and goes on.

    python -m e2e.smoke         (`make cluster-smoke`) up, both runs, down; ends with 1 if anything was not as promised
    python -m e2e.smoke here    the same on a node that is up, which is left up

Its lines and, after a failure, all objects, events and logs lie in `runs/cluster-smoke.log`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e import assets, install, node
from e2e.environment import REPOSITORY
from e2e.journal import Journal, objects, until
from e2e.node import MANIFESTS, NodeError, kubectl
from e2e.settings import ADMIN

LOG = REPOSITORY / "runs" / "cluster-smoke.log"
EXAMPLE = REPOSITORY / "examples" / "quickstart.yaml"
LEARNED = 0.8
READY_S, TRAINED_S, FETCHED_S = 300, 600, 120
CONTROLLER, SAMPLER, TRAINER = "ControllerActor", "RolloutReplica", "TrainerRank"


def train_quickstart(journal: Journal) -> None:
    """The example as it stands, to Complete; what runs where and what `kubectl get` says is checked on the way."""
    journal.say(f"first run: kubectl apply -f {EXAMPLE.relative_to(REPOSITORY)}")
    kubectl("apply", f"--filename={EXAMPLE}")
    watch = Watched("quickstart", journal)
    watch.until(READY_S, "Ready=True", lambda: watch.condition("Ready") == "True")
    watch.until(TRAINED_S, "its tenth step", lambda: watch.step() >= 10)
    _check_places("quickstart", journal)
    watch.until(TRAINED_S, "its end", watch.has_ended)
    _check_result("quickstart", journal)


def lose_the_head(journal: Journal) -> None:
    """The same on a volume: its head pod is deleted, and the next attempt goes on from the checkpoint."""
    stack = json.loads(kubectl("create", "--dry-run=client", "-o", "json", f"--filename={EXAMPLE}"))
    stack["metadata"]["name"] = name = "resumed"
    stack["spec"]["run"]["volume"] = {"claimName": "runs"}
    journal.say("second run: the same with a volume; its head pod will be deleted")
    kubectl("apply", f"--filename={MANIFESTS / 'volume.yaml'}")
    kubectl("apply", "--filename=-", stdin=json.dumps(stack))
    watch = Watched(name, journal)
    watch.until(READY_S + TRAINED_S, "a checkpoint", lambda: watch.progress().get("checkpointStep", 0) >= 25)
    saved = watch.progress()["checkpointStep"]
    head = _head(name)
    kubectl("delete", "pod", head, "--wait=false", "--grace-period=1")  # in the usual 30 s it would train to its end
    journal.say(f"deleted {head} at step {watch.step()}; the checkpoint is of step {saved}")
    watch.until(READY_S, "a second attempt", lambda: watch.status().get("attempts", 0) >= 2)
    watch.until(TRAINED_S, "its end", watch.has_ended)
    result = _check_result(name, journal)
    _require(result["lineage"] >= 1, f"lineage is {result['lineage']}: the second attempt began anew")
    status = watch.status()
    _require(status.get("restarts") == 1, f"restarts are {status.get('restarts')} and not 1")
    _require(not status.get("failures"), f"failures are {status.get('failures')}: a lost head is none")


class Watched:
    """A stack while it is waited for; each change of its line in `kubectl get tstack` is said."""

    def __init__(self, name: str, journal: Journal) -> None:
        self._name, self._journal, self._line = name, journal, ""

    def until(self, within_s: float, what: str, probe: Callable[[], bool]) -> None:
        """Wait for that.

        Raises:
            NodeError: it did not come in time, or the stack is Failed.
        """

        def looked() -> bool:
            self._say()
            failed = self.condition("Failed") == "True"
            _require(not failed, f"stack {self._name} is Failed: {json.dumps(self.status().get('conditions'))}")
            return probe()

        until(within_s, f"{what} of stack {self._name}", looked)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(kubectl("get", "tstack", self._name, "-o", "json")).get("status", {})
        return found

    def progress(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status().get("progress", {})
        return found

    def step(self) -> int:
        return int(self.progress().get("step", 0))

    def condition(self, kind: str) -> str:
        conditions = self.status().get("conditions", [])
        return next((str(each["status"]) for each in conditions if each["type"] == kind), "")

    def has_ended(self) -> bool:
        return self.condition("Complete") == "True"

    def _say(self) -> None:
        columns = kubectl("get", "tstack", self._name).splitlines()
        line = "\n".join(row[: columns[0].index("AGE")].rstrip() for row in columns)
        if line != self._line:
            self._line = line
            self._journal.say(line.splitlines()[-1])


def _check_places(name: str, journal: Journal) -> None:
    """The queue's controller is on the head, samplers and trainers are in the pods of their groups."""
    actors = json.loads(kubectl("exec", _head(name), "--", "python", "-m", "e2e.where").splitlines()[-1])
    journal.say(f"actors and their groups: {actors}")
    for kind, group in ((CONTROLLER, "head"), (SAMPLER, "sampler"), (TRAINER, "trainer")):
        places = {place for actor, title, place in actors if kind in (actor, *title.split())}
        _require(places == {group}, f"{kind} is in {sorted(places)} and not in {group}")
    for group in ("sampler", "trainer"):
        pods = objects("pods", f"ray.io/cluster={name},ray.io/group={group}")
        labels = [pod["metadata"]["labels"].get("twinkle.dev/device-group") for pod in pods]
        _require(labels == [group], f"pods of worker group {group} are labelled {labels}")


def _check_result(name: str, journal: Journal) -> dict[str, Any]:
    """The held-out reward of a run, from its folder as `twinkle fetch` brings it to this machine."""
    with tempfile.TemporaryDirectory() as place:
        command = [str(Path(sys.prefix, "bin", "twinkle")), "fetch", name, "--namespace", "default", "--to", place]
        given = {**os.environ, "KUBECONFIG": str(ADMIN)}
        ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=FETCHED_S, check=False)
        _require(ended.returncode == 0, f"twinkle fetch {name} failed: {ended.stderr.strip()}")
        journal.say(f"twinkle fetch {name}: {ended.stdout.strip()}")
        folders = list(Path(place).iterdir())
        _require(len(folders) == 1, f"twinkle fetch left {[each.name for each in folders]} and not one folder")
        files = {str(each.relative_to(folders[0])) for each in folders[0].rglob("*")}
        lacking = sorted({"result.json", "report.html", "adapter/adapter_model.safetensors"} - files)
        _require(not lacking, f"twinkle fetch brought no {lacking}; there are {sorted(files)}")
        result: dict[str, Any] = json.loads((folders[0] / "result.json").read_text())
    journal.say(f"held-out reward {result['eval_reward_after']:.3f} after {result['steps']} steps")
    _require(result["eval_reward_after"] >= LEARNED, f"the held-out reward is below {LEARNED}")
    return result


def _head(name: str) -> str:
    pods = objects("pods", f"ray.io/cluster={name},ray.io/node-type=head")
    alive = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    _require(len(alive) == 1, f"stack {name} has {len(alive)} heads")
    return str(alive[0])


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NodeError(otherwise)


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the node goes down, as after Ctrl-C
    LOG.parent.mkdir(exist_ok=True)
    journal, own = Journal(LOG), arguments != ["here"]
    code = 1
    try:
        if own:
            node.up()
            journal.say("the node is Ready")
            install.kuberay()
            journal.say("KubeRay is available")
            install.operator()
            journal.say("the operator is available")
        train_quickstart(journal)
        lose_the_head(journal)
        code = 0
    except (NodeError, assets.AssetError, subprocess.TimeoutExpired, TimeoutError) as error:
        journal.say(f"FAILED: {error}")
        journal.diagnose()
    finally:
        if own:
            node.down()
            journal.say("the node is down, and nothing of it is left")
    journal.say("passed" if code == 0 else f"failed; objects, events and logs are in {LOG}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
