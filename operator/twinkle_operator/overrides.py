"""Spec -> Hydra overrides: one truth for the driver in the cluster, `twinkle-train stack=` and `twinkle render`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from twinkle_operator.quantity import whole
from twinkle_operator.spec import Group, Spec
from twinkle_operator.words import GROUP_LABEL, JOURNAL_PATH, LINGER_S, RUNS_PATH, STATUS_PORT

TASKS = ("rollout", "reward", "train")
"""Each is named, because a dict of Hydra's is merged into the experiment's."""

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.-]*|0|[1-9][0-9]{0,17}")
_WORDS = frozenset({"null", "true", "false", "nan", "inf"})


def overrides(spec: Spec, *, namespace: str, name: str, uid: str) -> list[str]:
    """Arguments of `twinkle-train`, one key=value each: what the spec owns, then `run.overrides`, which win nothing.

    Every key that owned.py names for spec fields is set, so that no default of an experiment shows through. Sampler
    groups have one engine, tp and pp, and share the prompts: they are one mesh whose dp is their sum.
    """
    made = [
        f"experiment={value(spec.run.experiment)}",
        "infra=ray",
        "infra.address=auto",
        *_groups(spec),
        *_queue(spec),
        *_model(spec),
        f"metrics.port={STATUS_PORT}",
        "metrics.host=0.0.0.0",
        f"metrics.linger_s={LINGER_S}",
        f"run.folder={value(run_folder(spec, namespace=namespace, name=name, uid=uid))}",
        "run.resume=auto",
        f"run.resume_from={value(spec.run.resume_from)}",
    ]
    return [*made, *spec.run.overrides]


def run_folder(spec: Spec, *, namespace: str, name: str, uid: str) -> str:
    """Folder of the run, on the head: no two stacks share one, a stack of the same name made later neither."""
    root = spec.run.volume.path if spec.run.volume else RUNS_PATH
    return f"{root.rstrip('/')}/{namespace}/{name}-{uid}"


def ranks(group: Group) -> int:
    """Processes of a group."""
    mesh = group.mesh
    return mesh.dp * mesh.fsdp * mesh.tp * mesh.pp * mesh.cp * mesh.ep


def ranks_per_pod(group: Group) -> int:
    """As given, or one replica of a sampler, or one rank."""
    if group.ranks_per_pod is not None:
        return group.ranks_per_pod
    return group.mesh.tp * group.mesh.pp if group.role == "sampler" else 1


def pods(group: Group) -> int:
    """Pods of a group; those of a size that CEL refuses are rounded up."""
    return -(-ranks(group) // ranks_per_pod(group))


def of_role(spec: Spec, role: str) -> list[Group]:
    """Groups of a role, in the order of the spec."""
    return [group for group in spec.device_groups if group.role == role]


def value(given: str | int | None) -> str:
    """A value as Hydra's grammar reads it back, whatever is in it: no choice, no number, no interpolation."""
    if given is None:
        return "null"
    text = str(given)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not (isinstance(given, str) and text.isdecimal()):
        return text
    text = re.sub(r"(\\*)\$\{", lambda hit: hit[1] * 2 + "\\${", text)
    return "'" + re.sub(r"(\\*)('|$)", lambda hit: hit[1] * 2 + ("\\'" if hit[2] else ""), text) + "'"


def _groups(spec: Spec) -> Iterator[str]:
    samplers, trainers, rewards = (of_role(spec, role) for role in ("sampler", "trainer", "reward"))
    yield f"mesh.trainer_dp={max(1, sum(group.mesh.dp for group in trainers))}"
    yield f"mesh.sampler_dp={max(1, sum(group.mesh.dp for group in samplers))}"
    yield f"mesh.sampler_tp={samplers[0].mesh.tp if samplers else 1}"
    yield f"mesh.sampler_pp={samplers[0].mesh.pp if samplers else 1}"
    yield f"mesh.reward_ranks={sum(map(ranks, rewards))}"
    for role, groups in (("sampler", samplers), ("trainer", trainers), ("reward", rewards)):
        if groups:
            yield f"infra.{role}.device_type={groups[0].device_type}"
            yield f"infra.{role}.cpus_per_rank={groups[0].cpus_per_rank}"
            yield f"infra.{role}.ranks_per_node={ranks_per_pod(groups[0])}"
            yield f"infra.{role}.label_selector={{{GROUP_LABEL}: {value(_selector(groups))}}}"


def _selector(groups: list[Group]) -> str:
    names = [group.name for group in groups]
    return names[0] if len(names) == 1 else f"in({', '.join(names)})"


def _queue(spec: Spec) -> Iterator[str]:
    controller, capacity = spec.controller, spec.storage.capacity
    size = None if capacity is None else whole(capacity)
    named = dict.fromkeys(TASKS, controller.sampler) | controller.task_samplers
    tasks = ", ".join(f"{task}: {value(name)}" for task, name in named.items())
    yield f"queue.storage={spec.storage.backend}"
    yield f"queue.capacity_bytes={value(capacity if size is None else size)}"
    yield f"queue.num_global_batch={controller.num_global_batch}"
    yield f"queue.sampler={value(controller.sampler)}"
    yield f"queue.task_samplers={{{tasks}}}"
    yield f"queue.journal={JOURNAL_PATH}"
    yield f"loop.prompts_per_step={controller.global_batch_size}"
    yield f"loop.samples_per_prompt={controller.num_n_samples}"


def _model(spec: Spec) -> Iterator[str]:
    engine = next((group.engine for group in of_role(spec, "sampler") if group.engine), "torch")
    yield f"sampler={engine}"
    if spec.model is not None:
        yield "model=local"
        yield f"model.id={value(spec.model)}"
    yield f"model.device={next((group.device_type for group in of_role(spec, 'trainer')), 'cpu')}"
