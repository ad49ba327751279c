"""Names and numbers that the resource, its children and the charts share; each stands here once."""

GROUP = "twinkle.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TrainingStack"
PLURAL = "trainingstacks"
SHORT = "tstack"

RAY_GROUP = "ray.io"
RAY_API_VERSION = "ray.io/v1"
RAY_VERSION = "2.58.0"
"""Of the client in this package, of spec.rayVersion and of the image: one version."""

FIELD_MANAGER = "twinkle-operator"
STACK_LABEL = f"{GROUP}/stack"
GROUP_LABEL = f"{GROUP}/device-group"
"""On the pods of a device group, and as a label of Ray's nodes, by which DeviceGroup selects them."""

KUEUE_LABEL = "kueue.x-k8s.io/queue-name"

STATUS_PORT = 9400
DASHBOARD_PORT = 8265
MOST_GROUPS = 17
"""Kueue takes 18 pod sets: the head and 17 worker groups."""

MOST_NAME = 40
"""Characters of a stack's name: KubeRay's 47 for a RayJob, less the number of the attempt."""

MOST_GROUP_NAME = 30
"""Characters of a device group's name."""

MOST_RANKS = 4096
"""Ranks of one device group."""
