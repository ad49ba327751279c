"""Hypothesis strategies for stacks that the API server takes: every rule of the CRD holds in them.

stacks()                    whole objects, as a person writes them (camelCase, defaults left out or spelled out)
specs()                     their specs
specs(trained=False)        trainer meshes beyond dp and npus, too, which the API server takes and no run can use yet
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from twinkle_operator.words import API_VERSION, KIND, RAY_VERSION

Object = dict[str, Any]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = st.from_regex(rf"[{_LETTERS}]([-a-z0-9]{{0,12}}[a-z0-9])?", fullmatch=True)
FREE = (
    "loop.steps=50", "loop.checkpoint_every=10", "optim.lr=1e-3", "++queue.lease_s=60", "infra.threads=2",
    "sampler.max_tokens=16", "data.path='a b=c'", "~eval", "model.lora.r=4", "run.seed=7", "algo=rloo",
)  # fmt: skip
"""Overrides that nobody owns, and that twinkle-train takes."""
IMAGES = st.sampled_from(["twinkle:0.1.0", "localhost/twinkle@sha256:" + "0" * 64, "registry.example:5000/rl/twinkle"])
AMOUNTS = st.sampled_from(["500m", "2", 1, "4Gi", "1.5"])


@st.composite
def templates(draw: st.DrawFn, *, image: bool, gpus: int = 0) -> Object:
    """A podTemplate; container 0 has an image of its own if `image`, and maybe a limit of so many GPUs."""
    container: Object = {"name": "ray"}
    if image:
        container["image"] = draw(IMAGES)
    if draw(st.booleans()):
        limits = draw(st.dictionaries(st.sampled_from(["cpu", "memory"]), AMOUNTS))
        if gpus and draw(st.booleans()):
            limits["nvidia.com/gpu"] = draw(st.sampled_from([gpus, str(gpus)]))
        container["resources"] = {"limits": limits}
    if draw(st.booleans()):
        container["env"] = [{"name": "HOME", "value": "/tmp"}]
    pod: Object = {"containers": [container]} if image or draw(st.booleans()) else {}
    if draw(st.booleans()):
        pod["tolerations"] = [{"key": "gpu", "operator": "Exists"}]
    template: Object = {"spec": pod}
    if draw(st.booleans()):
        template["metadata"] = {"labels": {"team": "rl"}, "annotations": {"note": "any text"}}
    return template


@st.composite
def device_groups(draw: st.DrawFn, *, image: bool, trained: bool) -> list[Object]:
    """Groups in any order; sampler groups differ in dp alone."""
    names = iter(draw(st.lists(NAMES.filter(lambda name: name not in ("head", "headgroup")), min_size=5, max_size=5,
                               unique=True)))  # fmt: skip
    groups = [draw(_sampler_groups(next(names), trained))]
    groups += [
        {**groups[0], "name": next(names), "mesh": {**groups[0]["mesh"], "dp": draw(st.integers(1, 4))}}
        for _ in range(draw(st.integers(0, 2)))
    ]
    mesh = {"dp": draw(st.integers(1, 4))}
    if not trained:
        mesh |= draw(st.dictionaries(st.sampled_from(["fsdp", "tp", "pp", "cp", "ep"]), st.integers(1, 2)))
    trainer: Object = {"name": next(names), "role": "trainer", "mesh": mesh}
    if draw(st.booleans()):
        trainer["ranksPerPod"] = draw(st.sampled_from([size for size in (1, 2, 4) if mesh["dp"] % size == 0]))
    groups.append(trainer | draw(_devices(trained)))
    if draw(st.booleans()):
        groups.append({"name": next(names), "role": "reward", "mesh": {"dp": draw(st.integers(1, 3))}})
    for group in groups:
        if image or draw(st.booleans()):
            gpus = _ranks_per_pod(group) if group.get("deviceType") == "cuda" else 0
            group["podTemplate"] = draw(templates(image=image, gpus=gpus))
    return draw(st.permutations(groups))


@st.composite
def _sampler_groups(draw: st.DrawFn, name: str, trained: bool) -> Object:
    engine = draw(st.sampled_from(["torch", "vllm"]))
    mesh = {"dp": draw(st.integers(1, 4))}
    if engine == "vllm":
        mesh |= draw(st.dictionaries(st.sampled_from(["tp", "pp"]), st.integers(1, 2)))
    replica = mesh.get("tp", 1) * mesh.get("pp", 1)
    group = {"name": name, "role": "sampler", "engine": engine, "mesh": mesh, **draw(_devices(trained))}
    return group | ({"ranksPerPod": replica} if draw(st.booleans()) else {})


def _devices(trained: bool) -> st.SearchStrategy[Object]:
    devices = st.sampled_from(["cpu", "cuda"] if trained else ["cpu", "cuda", "npu"])
    return st.fixed_dictionaries({}, optional={"deviceType": devices, "cpusPerRank": st.integers(1, 8)})


def _ranks_per_pod(group: Object) -> int:
    replica = group["mesh"].get("tp", 1) * group["mesh"].get("pp", 1) if group["role"] == "sampler" else 1
    return int(group.get("ranksPerPod", replica))


@st.composite
def runs(draw: st.DrawFn) -> Object:
    """spec.run; overrides are none that the spec owns, and none of the model."""
    run: Object = draw(
        st.fixed_dictionaries(
            {"experiment": st.sampled_from(["quickstart", "even_digits", "mine/first-try"])},
            optional={
                "overrides": st.lists(st.sampled_from(FREE), max_size=4),
                "volume": st.fixed_dictionaries(
                    {"claimName": NAMES},
                    optional={"path": st.sampled_from(["/runs", "/data/runs"]), "shared": st.booleans()},
                ),
                "backoffLimit": st.integers(0, 3),
                "activeDeadlineSeconds": st.integers(60, 86400),
                "ttlSecondsAfterFinished": st.integers(0, 600),
            },
        )
    )
    if "volume" in run and draw(st.booleans()):
        run["resumeFrom"] = run["volume"].get("path", "/runs") + "/team/stack-1/2026-run"
    return run


@st.composite
def specs(draw: st.DrawFn, *, trained: bool = True) -> Object:
    """A spec that the API server takes, and, if `trained`, that this version can run."""
    has_image = draw(st.booleans())
    groups = draw(device_groups(image=not has_image, trained=trained))
    trainer = next(group["mesh"] for group in groups if group["role"] == "trainer")
    unit = trainer["dp"] * trainer.get("fsdp", 1)
    least = sum(group["mesh"]["dp"] for group in groups if group["role"] == "sampler")
    controller = {"globalBatchSize": unit * draw(st.integers(-(-least // unit), 32))}
    controller |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "numGlobalBatch": st.integers(1, 4),
                "numNSamples": st.integers(2, 16),
                "sampler": st.sampled_from(["SequentialSampler", "team.samplers:Mine"]),
                "taskSamplers": st.just({"train": "GRPOSampler", "rollout": "sequential"}),
            },
        )
    )
    spec: Object = {"controller": controller, "deviceGroups": groups, "run": draw(runs())}
    if has_image:
        spec["image"] = draw(IMAGES)
    else:
        spec["head"] = {"podTemplate": draw(templates(image=True))}
    return spec | draw(st.fixed_dictionaries({}, optional=_PARTS))


_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "suspend": st.booleans(),
    "rayVersion": st.just(RAY_VERSION),
    "serviceAccountName": NAMES,
    "model": st.sampled_from(["hf://org/name", "ms://org/name@v1", "/models/mine"]),
    "modelCache": st.fixed_dictionaries({"claimName": NAMES}, optional={"path": st.just("/cache")}),
    "podDefaults": st.just({"nodeSelector": {"pool": "rl"}, "envFrom": [{"secretRef": {"name": "hub"}}]}),
    "storage": st.fixed_dictionaries(
        {}, optional={"backend": st.sampled_from(["ray", "memory"]), "capacity": st.sampled_from(["8Gi", "16777216"])}
    ),
    "networkPolicy": st.sampled_from([{}, {"egress": []}, {"egress": [{"ports": [{"port": 443}]}]}]),
}


def stacks(*, trained: bool = True) -> st.SearchStrategy[Object]:
    """A whole TrainingStack; its namespace is left to the caller."""
    labels = st.sampled_from([{}, {"labels": {"team": "rl"}}, {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}])
    return st.builds(
        lambda name, extra, spec: {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, **extra},
            "spec": spec,
        },
        NAMES,
        labels,
        specs(trained=trained),
    )
