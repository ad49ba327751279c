"""CEL rules of the resource, each with the sentence that a person reads when it fails.

The CRD carries them to the API server, `twinkle validate` evaluates the same text offline. What could be a pattern or
an enum is a rule all the same, because the API server's own words for those are regular expressions. The sizes in
`spec` keep their cost within the server's budget; tests/kube installs them on a real one.
"""

from __future__ import annotations

import json

import msgspec

from twinkle_operator.owned import OVERRIDE as _OVERRIDE
from twinkle_operator.owned import OWNED, WHOLE_GROUP
from twinkle_operator.words import MOST_GROUP_NAME, MOST_NAME, MOST_RANKS


class Rule(msgspec.Struct, frozen=True):
    """`check` holds, or the sentence is said about `field` (`.name`, below self).

    `subject` is a CEL string that begins the sentence with the offending value.
    """

    check: str
    message: str
    field: str = ""
    subject: str = ""

    @property
    def is_transition(self) -> bool:
        """It compares an update with what was there before."""
        return "oldSelf" in self.check

    def schema(self) -> dict[str, str]:
        """As an entry of x-kubernetes-validations."""
        made = {"rule": self.check, "message": self.message}
        if self.subject:
            made["messageExpression"] = f"{self.subject} + {json.dumps(' ' + self.message)}"
        if self.field:
            made["fieldPath"] = self.field
        return made


_VALUE = "'\"' + self + '\"'"
_OF_GROUP = "'group ' + self.name + ':'"


def _spelled(pattern: str, message: str) -> Rule:
    return Rule(f"self.matches('{pattern}')", message, subject=_VALUE)


def one_of(choices: tuple[str, ...]) -> Rule:
    """A word out of a few."""
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return Rule(f"self in [{listed}]", f"is unknown; choose one of: {', '.join(choices)}", subject=_VALUE)


OBJECT_NAME = (
    _spelled(
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "is no name of an object: lower case letters, digits, - and ., beginning and ending with a letter or digit",
    ),
)
IMAGE = (
    _spelled("^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", "is no image: registry/name:tag or name@sha256:digest, without blanks"),
)
FOLDER = (
    Rule(
        "self.matches('^(/[A-Za-z0-9._-]+)+$') && !self.contains('..')",
        "is no folder to mount at: an absolute path below / of letters, digits, . _ and -",
        subject=_VALUE,
    ),
)
MODEL = (
    Rule(
        "self.matches('^[!-~]+$') && (!self.contains('://') || self.matches('^(hf|ms)://.'))",
        "is no model: give hf://organisation/name, ms://organisation/name or a path, without blanks",
        subject=_VALUE,
    ),
)
RAY_VERSION = (_spelled("^[0-9]+[.][0-9]+[.][0-9]+$", "is no version of Ray: give three numbers, such as 2.58.0"),)
QUEUE_SAMPLER = (
    _spelled(
        "^(sequential|grpo|SequentialSampler|GRPOSampler|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*)$",
        "is no sampler of the queue: SequentialSampler, GRPOSampler, or a class of yours as module:Class",
    ),
)
TASKS = (
    Rule(
        "self.all(task, task in ['rollout', 'reward', 'train'])",
        "taskSamplers names a task that there is not: the tasks are rollout, reward and train",
    ),
)
QUANTITY = (
    Rule("isQuantity(self)", "is no quantity: give bytes, or a number with Ki, Mi, Gi or Ti: 8Gi", subject=_VALUE),
    Rule(
        "!isQuantity(self) || quantity(self).compareTo(quantity('16Mi')) >= 0",
        "is too small to hold a batch: give 16Mi or more",
        subject=_VALUE,
    ),
)
RESOURCE = (
    Rule(
        "isQuantity(string(self))", "is no quantity: give a number, or one with m, k, M, G, Ki, Mi or Gi: 500m, 2, 4Gi"
    ),
)
GROUP_NAME = (
    _spelled(
        f"^[a-z]([-a-z0-9]{{0,{MOST_GROUP_NAME - 2}}}[a-z0-9])?$",
        f"is no name of a group: at most {MOST_GROUP_NAME} lower case letters, digits and -, beginning with a letter",
    ),
    Rule("!(self in ['head', 'headgroup'])", "is KubeRay's own group: choose another name", subject=_VALUE),
)
EXPERIMENT = (
    _spelled(
        "^[A-Za-z0-9_][A-Za-z0-9_/-]*$",
        "is no experiment: a name as in twinkle-train experiment=NAME, of letters, digits, _, - and /",
    ),
)
OVERRIDE = (
    _spelled(_OVERRIDE, "is no override: write key=value, such as loop.steps=50, without a blank before the ="),
    Rule(
        f"!self.matches('{WHOLE_GROUP}')",
        "replaces settings that the spec owns: override one setting at a time, such as queue.lease_s=60",
        subject=_VALUE,
    ),
    *(
        Rule(f"!self.matches('{owned.pattern}')", f"is owned by the spec; {owned.sentence}", subject=_VALUE)
        for owned in OWNED
        if not owned.only_with_model
    ),
)

BACKEND = (
    Rule(
        "self == oldSelf",
        "storage.backend cannot change, for the queue's values lie there: delete the stack and create it again",
    ),
)

_RANKS = " * ".join(f"self.mesh.{axis}" for axis in ("dp", "fsdp", "tp", "pp", "cp", "ep"))
_RANKS_PER_POD = "(has({0}.ranksPerPod) ? {0}.ranksPerPod : {0}.role == 'sampler' ? {0}.mesh.tp * {0}.mesh.pp : 1)"
_CONTAINER = "self.podTemplate.spec.containers[0]"
_ASKS_FOR_GPUS = (
    "has(self.podTemplate) && has(self.podTemplate.spec) && has(self.podTemplate.spec.containers) && "
    f"has({_CONTAINER}.resources) && has({_CONTAINER}.resources.limits) && "
    f"'nvidia.com/gpu' in {_CONTAINER}.resources.limits"
)


def _group(check: str, message: str, field: str) -> Rule:
    return Rule(check, message, field, _OF_GROUP)


GROUP = (
    Rule("self.role != 'sampler' || has(self.engine)", "a group with role: sampler needs engine: torch or vllm"),
    _group("self.role == 'sampler' || !has(self.engine)", "only role sampler has an engine; leave it out", ".engine"),
    _group(
        "self.role != 'sampler' || (self.mesh.fsdp == 1 && self.mesh.cp == 1 && self.mesh.ep == 1)",
        "the mesh of a sampler has dp, tp and pp; leave fsdp, cp and ep out",
        ".mesh",
    ),
    _group(
        f"self.role != 'reward' || {_RANKS} == self.mesh.dp",
        "the mesh of a reward group has dp alone; leave the other axes out",
        ".mesh",
    ),
    _group(
        "!has(self.engine) || self.engine != 'torch' || self.mesh.tp * self.mesh.pp == 1",
        "a torch sampler runs on one device: leave tp and pp out, or set engine: vllm",
        ".mesh",
    ),
    _group(f"{_RANKS} <= {MOST_RANKS}", f"the product of its mesh sizes is more than {MOST_RANKS} ranks", ".mesh"),
    _group(
        f"!has(self.ranksPerPod) || ({_RANKS}) % self.ranksPerPod == 0",
        "the product of its mesh sizes must be a multiple of ranksPerPod",
        ".ranksPerPod",
    ),
    _group(
        "!has(self.ranksPerPod) || self.role != 'sampler' || self.ranksPerPod % (self.mesh.tp * self.mesh.pp) == 0",
        "one replica never spans pods: ranksPerPod must be a multiple of tp*pp",
        ".ranksPerPod",
    ),
    _group(
        f"self.deviceType != 'cuda' || !({_ASKS_FOR_GPUS}) || "
        f"string({_CONTAINER}.resources.limits['nvidia.com/gpu']) == string({_RANKS_PER_POD.format('self')})",
        "the nvidia.com/gpu limit of container 0 must equal ranksPerPod, or be left out: it is filled in",
        ".podTemplate",
    ),
    _group(
        f"self.deviceType == 'cuda' || !({_ASKS_FOR_GPUS})",
        "container 0 asks for nvidia.com/gpu: set deviceType: cuda, or leave the limit out",
        ".deviceType",
    ),
)

RUN = (
    Rule(
        "!has(self.resumeFrom) || has(self.volume)",
        "resumeFrom is a folder on run.volume: set run.volume.claimName, too",
        ".resumeFrom",
    ),
    Rule(
        "!has(self.resumeFrom) || !has(self.volume) || "
        "(self.resumeFrom.startsWith(self.volume.path + '/') && !self.resumeFrom.contains('..'))",
        "resumeFrom must be a folder below run.volume.path, such as the status.runFolder of another stack",
        ".resumeFrom",
    ),
)

_SAMPLERS = "self.deviceGroups.filter(group, group.role == 'sampler')"
_ALIKE = " && ".join(
    (
        "(has(a.engine) ? a.engine : '') == (has(b.engine) ? b.engine : '')",
        "a.deviceType == b.deviceType",
        "a.mesh.tp == b.mesh.tp",
        "a.mesh.pp == b.mesh.pp",
        "a.cpusPerRank == b.cpusPerRank",
        f"{_RANKS_PER_POD.format('a')} == {_RANKS_PER_POD.format('b')}",
    )
)
_HAS_IMAGE = (
    "has({0}.podTemplate) && has({0}.podTemplate.spec) && has({0}.podTemplate.spec.containers) && "
    "has({0}.podTemplate.spec.containers[0].image)"
)
_CLAIM = "(has({0}.run.volume) ? {0}.run.volume.claimName : '')"
_WITH_MODEL = next(owned for owned in OWNED if owned.only_with_model)

SPEC = (
    Rule(f"{_SAMPLERS}.size() >= 1", "deviceGroups needs at least one group with role: sampler", ".deviceGroups"),
    Rule(
        "self.deviceGroups.exists_one(group, group.role == 'trainer')",
        "deviceGroups needs exactly one group with role: trainer",
        ".deviceGroups",
    ),
    Rule(
        "self.deviceGroups.filter(group, group.role == 'reward').size() <= 1",
        "deviceGroups may have one group with role: reward; give it more dp instead",
        ".deviceGroups",
    ),
    Rule(
        f"self.deviceGroups.all(a, a.role != 'sampler' || self.deviceGroups.all(b, b.role != 'sampler' || ({_ALIKE})))",
        "groups with role: sampler must agree in engine, deviceType, mesh.tp, mesh.pp, ranksPerPod and cpusPerRank; "
        "only dp may differ",
        ".deviceGroups",
    ),
    Rule(
        "self.deviceGroups.all(group, group.role != 'trainer' || "
        "self.controller.globalBatchSize % (group.mesh.dp * group.mesh.fsdp) == 0)",
        "globalBatchSize (prompts) must be a multiple of the trainer's dp*fsdp: every rank trains whole groups",
        ".controller.globalBatchSize",
    ),
    Rule(
        f"{_SAMPLERS}.map(group, group.mesh.dp).sum() <= self.controller.globalBatchSize",
        "globalBatchSize (prompts) is less than all sampler replicas (dp) together: some would have nothing to answer",
        ".controller.globalBatchSize",
    ),
    Rule(
        f"has(self.image) || ({_HAS_IMAGE.format('self.head')} && "
        f"self.deviceGroups.all(group, {_HAS_IMAGE.format('group')}))",
        "set spec.image, or the image of container 0 in the podTemplate of the head and of every device group",
    ),
    Rule(
        f"!has(self.model) || self.run.overrides.all(override, !override.matches('{_WITH_MODEL.pattern}'))",
        f"an override is owned by the spec; {_WITH_MODEL.sentence}",
        ".run.overrides",
    ),
    Rule(
        "!has(self.modelCache) || !has(self.run.volume) || self.modelCache.path != self.run.volume.path",
        "modelCache.path and run.volume.path are the same folder: choose two",
        ".modelCache",
    ),
    Rule(
        "oldSelf.suspend || (self.deviceGroups.size() == oldSelf.deviceGroups.size() && "
        "oldSelf.deviceGroups.all(old, self.deviceGroups.exists(new, new.name == old.name)))",
        "groups come and go only while the stack is suspended: apply suspend: true first",
        ".deviceGroups",
    ),
    Rule(
        "oldSelf.suspend || oldSelf.deviceGroups.all(old, self.deviceGroups.all(new, new.name != old.name || "
        "(new.mesh == old.mesh && new.role == old.role)))",
        "a mesh or a role changes only while the stack is suspended: apply suspend: true first",
        ".deviceGroups",
    ),
    Rule(
        f"oldSelf.suspend || {_CLAIM.format('self')} == {_CLAIM.format('oldSelf')}",
        "run.volume.claimName changes only while the stack is suspended, for the run begins anew on another claim: "
        "apply suspend: true first",
        ".run.volume",
    ),
)

STACK = (
    Rule(
        f"self.metadata.name.size() <= {MOST_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"is no name of a stack: at most {MOST_NAME} lower case letters, digits and -, beginning with a letter; pods "
        "and services are named from it",
        ".metadata.name",
        "'\"' + self.metadata.name + '\"'",
    ),
)
