"""Names of models on a hub: ``hf://org/name@revision`` and ``ms://org/name@revision``."""

import re
from dataclasses import dataclass

from twinkle.choices import nearest
from twinkle.errors import ConfigError

HUBS = {"hf": "Hugging Face", "ms": "ModelScope"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_NAME = {"hf": re.compile(rf"(?:{_PART}/)?{_PART}"), "ms": re.compile(rf"{_PART}/{_PART}")}
_REVISION = re.compile(r"(?!/)(?!.*\.\.)[^\s@\\?*\[~^:]+(?<!/)")


@dataclass(frozen=True, slots=True)
class Address:
    """A model on a hub. ``revision`` is a branch, a tag or a commit; None is the hub's default branch."""

    hub: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.hub}://{self.name}" + (f"@{self.revision}" if self.revision is not None else "")


def parse(model_id: str) -> Address | None:
    """The address that an id spells, or None for one without a scheme (a path).

    Raises ConfigError for a scheme that is no hub's, and for a name or revision that cannot be one.
    """
    match = _SCHEME.fullmatch(model_id)
    if match is None:
        return None
    hub, rest = match[1], match[2]
    if hub not in HUBS:
        raise ConfigError(
            f"model {model_id!r} has the unknown scheme {hub!r}; give hf://organisation/name, ms://organisation/name "
            "or a folder" + nearest(hub, HUBS)
        )
    name, at, revision = rest.partition("@")
    if not _NAME[hub].fullmatch(name) or ".." in name or "--" in name:
        raise ConfigError(f"model {model_id!r} is no name on {HUBS[hub]}; it looks like {hub}://organisation/name")
    if at and not _REVISION.fullmatch(revision):
        raise ConfigError(
            f"model {model_id!r} has the revision {revision!r}; give a branch, a tag or a commit behind the @, "
            "or leave the @ out"
        )
    return Address(hub, name, revision if at else None)
