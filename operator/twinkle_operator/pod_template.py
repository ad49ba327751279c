"""Pod templates: a podTemplate over podDefaults, and what the operator needs in it. Security contexts are left."""

from __future__ import annotations

from typing import Any

from twinkle_operator.merging import Object, added, copy, over, part, under
from twinkle_operator.overrides import ranks_per_pod
from twinkle_operator.spec import Group, Spec
from twinkle_operator.words import (
    DASHBOARD_PORT,
    GROUP_LABEL,
    JOURNAL_PATH,
    RUNS_PATH,
    STACK_LABEL,
    STATUS_PORT,
    STOP_WAIT_S,
)

OF_CONTAINER = ("env", "envFrom", "imagePullPolicy")
"""Fields of podDefaults that belong to container 0; the others are those of a PodSpec."""

RUNS, JOURNAL, MODELS = "twinkle-runs", "twinkle-journal", "twinkle-models"
GPU = "nvidia.com/gpu"
HEAD_GRACE_S, WORKER_GRACE_S = STOP_WAIT_S + 10, 5
"""Of a pod's end, unless given: the shell that KubeRay starts Ray in does not hear SIGTERM, and only a driver saves."""

HEAD_PORTS: list[Object] = [
    {"name": "gcs-server", "containerPort": 6379, "protocol": "TCP"},
    {"name": "dashboard", "containerPort": DASHBOARD_PORT, "protocol": "TCP"},
    {"name": "client", "containerPort": 10001, "protocol": "TCP"},
    {"name": "metrics", "containerPort": STATUS_PORT, "protocol": "TCP"},
]
"""KubeRay's head service offers exactly the ports of the head's container."""


def head(spec: Spec, name: str) -> Object:
    """Template of the head pod: the ports, the run volume or an emptyDir in its place, the journal's emptyDir."""
    template = _template(spec, spec.head.pod_template, {STACK_LABEL: name}, HEAD_GRACE_S)
    path = spec.run.volume.path if spec.run.volume else RUNS_PATH
    _mount(template, RUNS, _runs(spec), path)
    _mount(template, JOURNAL, {"emptyDir": {}}, JOURNAL_PATH)
    _models(template, spec)
    if (container := _container(template)) is not None:
        stop = {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(STOP_WAIT_S)}
        container["env"] = over(container.get("env"), [stop], "name")
        numbers = [port["containerPort"] for port in HEAD_PORTS]
        ports = container.get("ports")
        if isinstance(ports, list):
            ports = [each for each in ports if not (isinstance(each, dict) and each.get("containerPort") in numbers)]
        container["ports"] = over(ports, HEAD_PORTS, "name")
    return template


def worker(spec: Spec, group: Group, name: str) -> Object:
    """Template of a device group's pods: one GPU for each rank on cuda, unless a limit of NVIDIA's is given."""
    labels = {STACK_LABEL: name, GROUP_LABEL: group.name}
    template = _template(spec, group.pod_template, labels, WORKER_GRACE_S)
    if group.role == "trainer" and spec.run.volume and spec.run.volume.shared:
        _mount(template, RUNS, _runs(spec), spec.run.volume.path)
    _models(template, spec)
    container = _container(template)
    if container is not None and group.device_type == "cuda":
        resources = part(container, "resources")
        limits = None if resources is None else part(resources, "limits")
        if limits is not None and not any(str(key).startswith("nvidia.com/") for key in limits):
            limits[GPU] = ranks_per_pod(group)
    return template


def submitter(spec: Spec, name: str) -> Object:
    """Template of the pod that submits the driver and shows its log: image, pull secrets and place of the head's."""
    model = head(spec, name)
    pod = model["spec"] if isinstance(model.get("spec"), dict) else {}
    container = _container(model) or {}
    kept = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName", "securityContext",
            "serviceAccountName", "automountServiceAccountToken", "runtimeClassName", "schedulerName")  # fmt: skip
    made: Object = {
        "name": "ray-job-submitter",
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
    }
    made |= {key: container[key] for key in ("image", "imagePullPolicy", "securityContext") if key in container}
    return {
        "metadata": {"labels": {STACK_LABEL: name}},
        "spec": {
            **{key: pod[key] for key in kept if key in pod},
            "restartPolicy": "Never",
            "containers": [made],
        },
    }


def _template(spec: Spec, given: Object | None, labels: dict[str, str], grace_s: int) -> Object:
    template: Object = copy(given or {})
    metadata = part(template, "metadata")
    own = None if metadata is None else part(metadata, "labels")
    if own is not None:
        own.update(labels)
    if (pod := part(template, "spec")) is None:
        return template
    defaults = {key: value for key, value in (spec.pod_defaults or {}).items() if key not in OF_CONTAINER}
    template["spec"] = pod = under(pod, defaults)
    if spec.service_account_name is not None:
        pod.setdefault("serviceAccountName", spec.service_account_name)
    pod.setdefault("automountServiceAccountToken", False)
    pod.setdefault("terminationGracePeriodSeconds", grace_s)
    if (container := _container(template)) is not None:
        if spec.image is not None:
            container.setdefault("image", spec.image)
        of_container = {key: value for key, value in (spec.pod_defaults or {}).items() if key in OF_CONTAINER}
        pod["containers"][0] = under(container, of_container)
    return template


def _container(template: Object) -> Object | None:
    """Container 0, made if there is none; None where a person wrote something that is no container."""
    pod = template["spec"]
    if not isinstance(pod, dict):
        return None
    if not pod.get("containers"):
        pod["containers"] = [{"name": "ray"}]
    containers = pod["containers"]
    first = containers[0] if isinstance(containers, list) else None
    if not isinstance(first, dict):
        return None
    first.setdefault("name", "ray")
    return first


def _mount(template: Object, name: str, source: Object, path: str, *, read_only: bool = False) -> None:
    """Mount a volume of ours in container 0, unless something of a person's is mounted there."""
    container = _container(template)
    if container is None:
        return
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    mounts = added(container.get("volumeMounts"), [mount | ({"readOnly": True} if read_only else {})], "mountPath")
    if isinstance(mounts, list) and any(isinstance(each, dict) and each.get("name") == name for each in mounts):
        pod = template["spec"]
        pod["volumes"] = over(pod.get("volumes"), [{"name": name, **source}], "name")
    container["volumeMounts"] = mounts


def _runs(spec: Spec) -> Object:
    volume = spec.run.volume
    return {"persistentVolumeClaim": {"claimName": volume.claim_name}} if volume else {"emptyDir": {}}


def _models(template: Object, spec: Spec) -> None:
    """The claim with models, and where the hubs find their caches in it."""
    cache = spec.model_cache
    if cache is None:
        return
    source = {"persistentVolumeClaim": {"claimName": cache.claim_name, "readOnly": True}}
    _mount(template, MODELS, source, cache.path, read_only=True)
    if (container := _container(template)) is not None:
        root = cache.path.rstrip("/")
        places = [
            {"name": "HF_HOME", "value": f"{root}/huggingface"},
            {"name": "MODELSCOPE_CACHE", "value": f"{root}/modelscope"},
        ]
        container["env"] = added(container.get("env"), places, "name")
