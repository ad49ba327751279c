"""`twinkle fetch NAME`: the run folder of a stack, read by a pod that exists only for that, or from the head."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from kubernetes import client

from twinkle_operator.commands.access import DEADLINE_S, Access, asked
from twinkle_operator.commands.archive import unpack
from twinkle_operator.commands.pod_exec import MOST_SAID, output
from twinkle_operator.commands.reader_pod import CONTAINER, reader_pod
from twinkle_operator.errors import OperatorError
from twinkle_operator.observed import Stack
from twinkle_operator.resources import Manifest
from twinkle_operator.strip import pod as stripped
from twinkle_operator.text import one_line
from twinkle_operator.words import STACK_LABEL

LEFT_OUT = (".*", "queue.json", "weights")
"""In a run folder: locks, drafts, the key to its queue, and what samplers read while it runs. None is a result."""
POLL_S = 0.5


def fetch(name: str, namespace: str | None, context: str | None, into: Path, *, deadline: int) -> Path:
    """Bring the run folder into `into`; where it is then. What it waits for goes to stderr.

    The reader pod is deleted, whatever happens, Ctrl-C too.

    Args:
        deadline: seconds for all of it, waiting for the reader pod too.

    Raises:
        OperatorError: it cannot be had; nothing is changed then.
    """
    access = Access(namespace, context)
    stack, _ = access.stack(name)
    folder = stack.status.run_folder
    if not folder:
        raise OperatorError(f"{access.namespace}/{name} has no run folder yet")
    head = next((pod for pod in access.pods(f"{STACK_LABEL}={name},ray.io/node-type=head") if _owned(pod)), None)
    path, end = PurePosixPath(folder), time.monotonic() + deadline
    with (
        _reader(access, stack, head, deadline) as (pod, container),
        output(access, pod, container, tar(path), end=end) as archive,
    ):
        return unpack(archive, path.name, into)


@contextmanager
def _reader(access: Access, stack: Stack, head: Manifest | None, deadline: int) -> Iterator[tuple[str, str]]:
    """A pod, and the container in it, that can read the run folder."""
    if stack.spec is None or stack.spec.run.volume is None:
        ready = None if head is None else stripped(head)
        if head is None or ready is None or not ready.ready:
            why = (ready and ready.why) or "it starts"
            there = "there is none" if head is None else f"it is not ready yet: {why}"
            raise OperatorError(
                f"{stack.namespace}/{stack.name} has no run.volume: its run lies on its head pod; {there}"
            )
        yield head["metadata"]["name"], head["spec"]["containers"][0]["name"]
        return
    manifest = reader_pod(stack, head, deadline=deadline)
    with asked(f"a reader pod in {stack.namespace}"):
        made = access.core.create_namespaced_pod(stack.namespace, manifest, _request_timeout=DEADLINE_S)
    name = made.metadata.name
    try:
        _await_running(access, name, time.monotonic() + deadline)
        yield name, CONTAINER
    finally:
        with asked(f"pod {stack.namespace}/{name} was not deleted (it ends by itself after {deadline} s)"):
            _delete(access, name)


def _delete(access: Access, name: str) -> None:
    try:
        access.core.delete_namespaced_pod(name, access.namespace, grace_period_seconds=0, _request_timeout=DEADLINE_S)
    except client.ApiException as error:
        if error.status != 404:
            raise


def _await_running(access: Access, name: str, end: float) -> None:
    where, said = f"the reader pod {access.namespace}/{name}", ""
    while True:
        with asked(where):
            pod = access.core.read_namespaced_pod(name, access.namespace, _request_timeout=DEADLINE_S)
        if pod.status.phase == "Running":
            return
        why = _why(access.api.sanitize_for_serialization(pod))
        if pod.status.phase in ("Failed", "Succeeded"):
            raise OperatorError(f"{where} ended before it could read: {why}")
        if time.monotonic() > end:
            raise OperatorError(f"{where} did not start in time: {why}")
        if why != said and (said := why):
            print(f"{where} does not run yet: {one_line(why, MOST_SAID)}", file=sys.stderr)
        time.sleep(POLL_S)


def _why(pod: Manifest) -> str:
    status = pod.get("status") or {}
    waits = [each["state"]["waiting"] for each in status.get("containerStatuses") or [] if "waiting" in each["state"]]
    waits += [each for each in status.get("conditions") or [] if each.get("status") == "False" and each.get("message")]
    texts = [f"{each.get('reason', '')}: {each.get('message', '')}".strip(": ") for each in waits]
    return texts[0] if texts else status.get("message") or "no node has taken it"


def tar(path: PurePosixPath) -> list[str]:
    """The command that prints a run folder as an archive."""
    left_out = [f"--exclude={path.name}/{each}" for each in LEFT_OUT]
    return ["tar", "-C", str(path.parent), *left_out, "-cf", "-", "--", path.name]


def _owned(pod: Manifest) -> bool:
    return "deletionTimestamp" not in pod["metadata"]
