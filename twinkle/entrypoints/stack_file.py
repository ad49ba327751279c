"""``twinkle-train stack=FILE``: the TrainingStack that a cluster would run, turned into overrides for this machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from twinkle.errors import ConfigError
from twinkle.infra.device_aliases import VARIABLE
from twinkle_operator.crd.definition import stack_schema
from twinkle_operator.overrides import overrides, ranks, value
from twinkle_operator.spec import Spec
from twinkle_operator.validate.documents import Document, FileProblem
from twinkle_operator.validate.files import label, misnamed, repeated, stacks
from twinkle_operator.validate.structure import with_defaults
from twinkle_operator.words import KIND

ARGUMENT = "stack="
OF_THE_CLUSTER = (
    "infra.address", "infra.sampler.ranks_per_node", "infra.trainer.ranks_per_node", "infra.reward.ranks_per_node",
    "infra.sampler.label_selector", "infra.trainer.label_selector", "infra.reward.label_selector",
    "metrics.port", "metrics.host", "metrics.linger_s", "queue.journal", "run.folder", "run.resume", "run.resume_from",
)  # fmt: skip
"""Settings that mean something inside the cluster alone."""
ONE_PROCESS = {"mesh.sampler_dp": 1, "mesh.sampler_tp": 1, "mesh.sampler_pp": 1, "mesh.reward_ranks": 0}


@dataclass(frozen=True)
class Here:
    """What this machine has: CPUs, CUDA devices, and whether Ray is installed."""

    cpus: int
    gpus: int
    has_ray: bool


@dataclass(frozen=True)
class Expanded:
    """The arguments of ``twinkle-train`` without ``stack=``.

    Attributes:
        arguments: flags and overrides, those of a person last.
        title: which stack of which file this is.
        other: overrides that differ from those in a cluster.
        own: overrides that a person added.
        environment: variables that the run needs.
    """

    arguments: list[str]
    title: str
    other: list[str]
    own: list[str]
    environment: dict[str, str]

    def lines(self) -> Iterator[str]:
        """For a person: what is not as it would be in a cluster."""
        yield f"{self.title}, on this machine."
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        yield f"  other than in a cluster  {' '.join([*self.other, *variables])}"
        if self.own:
            yield f"  yours                    {' '.join(self.own)}"


def expanded(arguments: Sequence[str], here: Here | None = None) -> Expanded | None:
    """The arguments with the overrides of the stack in the place of ``stack=FILE`` or ``stack=FILE:name``; None where
    there is none.

    Raises:
        ConfigError: no such file, no such stack in it, or one that is not valid.
    """
    named = [each for each in arguments if each.startswith(ARGUMENT)]
    if not named:
        return None
    if len(named) > 1:
        raise ConfigError(f"{' '.join(named)}: there can be one stack; add overrides behind it.")
    own = [each for each in arguments if each not in named]
    stack = _chosen(named[0].removeprefix(ARGUMENT))
    wanted = _local(stack, {_key(each): each for each in own}, here or _here(stack.spec))
    made = overrides(stack.spec, namespace="local", name=stack.name, uid="0")
    left_out = {*OF_THE_CLUSTER, *wanted.settings, *map(_key, own)}
    changed = [f"{key}={value(each)}" for key, each in wanted.settings.items() if key not in map(_key, own)]
    return Expanded(
        [*(each for each in made if _key(each) not in left_out), *changed, *own],
        f"Stack {stack.name} of {stack.file}",
        [each for each in changed if each not in made],
        [each for each in own if not each.startswith("-")],
        wanted.environment,
    )


@dataclass(frozen=True)
class _Stack:
    file: str
    name: str
    spec: Spec


@dataclass(frozen=True)
class _Local:
    settings: dict[str, str | int]
    environment: dict[str, str]


def _local(stack: _Stack, own: Mapping[str, str], here: Here) -> _Local:
    """What is set for this machine."""
    settings: dict[str, str | int] = {"run.name": stack.name, "queue.storage": "shm"}
    environment: dict[str, str] = {}
    alone = own.get("infra", "") == "infra=local" or not here.has_ray
    if alone:
        settings |= {"infra": "local", **ONE_PROCESS}
    groups = stack.spec.device_groups
    if sum(ranks(group) * group.cpus_per_rank for group in groups) > here.cpus:
        settings |= {f"infra.{group.role}.cpus_per_rank": 0 for group in groups}
    if any(group.device_type == "cuda" for group in groups) and not here.gpus:
        settings["model.device"] = "cpu"
        if not alone:
            environment[VARIABLE] = os.environ.get(VARIABLE, "cuda:cpu")
    return _Local(settings, environment)


def _here(spec: Spec) -> Here:
    """torch is asked for CUDA devices only where the stack wants some."""
    gpus = 0
    if any(group.device_type == "cuda" for group in spec.device_groups):
        import torch

        gpus = torch.cuda.device_count()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Here(cpus, gpus, find_spec("ray") is not None)


def _key(override: str) -> str:
    """The key or group that an override names."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _chosen(named: str) -> _Stack:
    file, name = (named, "") if Path(named).exists() else _split(named)
    try:
        found = stacks(file)
    except FileProblem as error:
        raise ConfigError(f"{ARGUMENT}{label(file)}:{error.line}: {error}.") from error
    listed = ", ".join(sorted(map(_name, found)))
    chosen = [each for each in found if not name or _name(each) == name]
    if not chosen:
        raise ConfigError(f"{file} holds no {KIND} called {name!r}; there is {listed}.")
    if len(chosen) > 1:
        advice = "one name may stand once" if name else f"choose one, {ARGUMENT}{file}:NAME"
        raise ConfigError(f"{file} holds {len(chosen)} stacks, {listed}: {advice}.")
    return _Stack(file, _name(chosen[0]), _valid(file, chosen[0]))


def _split(named: str) -> tuple[str, str]:
    file, _, name = named.rpartition(":")
    return (file, name) if file else (named, "")


def _name(document: Document) -> str:
    metadata = document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else "(no name)"


def _valid(file: str, document: Document) -> Spec:
    """The spec with its defaults; ConfigError with the first problem of what a cluster would refuse."""
    _check(file, document)
    filled: Any = with_defaults(stack_schema(), document.value)
    try:
        return msgspec.convert(filled.get("spec"), Spec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}:{document.line(('spec',))}: {error}.") from error


def _check(file: str, document: Document) -> None:
    """All rules of the resource, where the packages are installed that evaluate them."""
    wrong = [*misnamed(document), *repeated(document)]
    try:
        from twinkle_operator.validate.stack import check_document
    except ModuleNotFoundError:
        pass
    else:
        wrong = [problem for problem in check_document(document) if problem.severity == "error"]
    wrong.sort(key=lambda problem: -len(problem.path))  # a field before the rules that look at the whole
    if wrong:
        more = f" (and {len(wrong) - 1} more: twinkle validate {file})" if len(wrong) > 1 else ""
        raise ConfigError(f"{file}:{document.line(wrong[0].path)}: {wrong[0].sentence}{more}")
