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

HEAD = "head"
"""The group of the head pod, where those of other pods are device groups; also Ray's type of that node."""

ATTEMPT_LABEL = f"{GROUP}/attempt"
"""On a RayJob: the number of its attempt."""

TEMPLATE = f"{GROUP}/template"
"""Annotation of RayCluster and RayJob, label of the RayCluster's pods: a hash of what they were made from; another one
rolls them."""

HEAD_ANNOTATION = f"{GROUP}/head-uid"
RESTARTS_ANNOTATION = f"{GROUP}/head-restarts"
"""On a RayJob: the head pod, and the restarts of its container, to which the attempt is bound."""

NOTE_ANNOTATION = f"{GROUP}/counters"
"""On a RayJob: the stack's counters when it began, so that no crash between two writes counts anything twice."""

RUNS_PATH = "/runs"
JOURNAL_PATH = "/var/lib/twinkle/journal"
"""On the head: where runs lie without a volume, and the queue's journal, which serves the controller's death only."""

REFUSED = "Refused"
"""Why of a poll whose connection was refused: nothing listens."""

STOP_WAIT_S = 25
"""Seconds that Ray's job stop waits between SIGTERM and SIGKILL (RAY_JOB_STOP_WAIT_TIME_S)."""

STOPPED_S = 30.0
"""Seconds that a driver gets to save its checkpoint before its pods go."""

DEAD_S = 40.0
"""Seconds after which it is dead on a head that stays: STOP_WAIT_S, and what KubeRay takes to tell Ray."""

MOST_FRUITLESS = 3
"""Restarts without a new checkpoint that end in Failed, NoProgress."""

KUEUE_LABEL = "kueue.x-k8s.io/queue-name"

STATUS_PORT = 9400
LINGER_S = 15
"""For which a driver that is done waits for the poll that reads its last step."""

DASHBOARD_PORT = 8265
MOST_GROUPS = 17
"""Kueue takes 18 pod sets: the head and 17 worker groups."""

MOST_NAME = 40
"""Characters of a stack's name: KubeRay's 47 for a RayJob, less the number of the attempt."""

MOST_GROUP_NAME = 30
"""Characters of a device group's name."""

MOST_RANKS = 4096
"""Ranks of one device group."""
