"""The one place where a model id becomes a folder."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from twinkle.choices import nearest
from twinkle.errors import ConfigError, ModelNotFoundError
from twinkle.hub.address import HUBS, Address, parse
from twinkle.hub.settings import HubConfig

ALIASES_VARIABLE = "TWINKLE_MODEL_ALIASES"
OFFLINE_VARIABLE = "TWINKLE_HUB_OFFLINE"
OFFLINE_VARIABLES = {"hf": ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "ms": ()}
ENDPOINT_VARIABLES = ("HF_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_ENDPOINT")


def resolve(model_id: str | os.PathLike[str], *, needs: str = "config.json", settings: HubConfig | None = None) -> Path:
    """The local folder of a model or an adapter; it holds the file ``needs``.

    An id that is an alias (``settings.aliases``, then the JSON object in TWINKLE_MODEL_ALIASES) stands for what the
    alias says: a folder or another id. ``hf://organisation/name@revision`` and ``ms://organisation/name@revision`` are
    looked for in the hub's cache and fetched into it: only the files that a model needs, safetensors rather than bin,
    each checked against its hash. Anything else is a path: "organisation/name" alone is never looked for on a hub.

    Raises ModelNotFoundError for a model, revision or file that is not there or not open to you, DownloadError where
    the hub cannot be reached or fails, ConfigError for an id or a variable that cannot be read; each says what to do.
    """
    settings = HubConfig() if settings is None else settings
    asked = os.fspath(model_id)
    aliases = {**_aliases_of_environment(), **settings.aliases}
    name = _follow(asked, aliases)
    address = parse(name)
    folder = _local(asked, name, aliases) if address is None else _fetch(address, needs, settings)
    if not (folder / needs).is_file():
        raise ModelNotFoundError(f"model {asked!r}: the folder {str(folder)!r} holds no {needs}; is it the right one?")
    return folder.resolve()


def environment(settings: HubConfig | None = None) -> dict[str, str]:
    """The variables with which another process finds the models that this one finds: aliases, offline mode and mirrors.

    Caches and tokens are left out: those are a machine's and a person's own.
    """
    settings = HubConfig() if settings is None else settings
    aliases = {**_aliases_of_environment(), **settings.aliases}
    names = (*ENDPOINT_VARIABLES, OFFLINE_VARIABLE, *OFFLINE_VARIABLES["hf"])
    found = {name: os.environ[name] for name in names if name in os.environ}
    if aliases:
        found[ALIASES_VARIABLE] = json.dumps(aliases)
    return found | ({OFFLINE_VARIABLE: "1"} if settings.offline else {})


def _fetch(address: Address, needs: str, settings: HubConfig) -> Path:
    offline = settings.offline or _is_offline(address.hub)
    if address.hub == "hf":
        from twinkle.hub import huggingface

        return huggingface.fetch(address, needs, offline=offline, stall_s=settings.stall_s)
    from twinkle.hub import modelscope

    return modelscope.fetch(address, needs, offline=offline, stall_s=settings.stall_s)


def _local(asked: str, name: str, aliases: Mapping[str, str]) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    where = f"model {asked!r}" + (f" (alias of {name!r})" if name != asked else "")
    looks_remote = name.count("/") == 1 and _parsed_or_none(f"hf://{name}") is not None
    advice = (
        f"; for a model of a hub say which: hf://{name} or ms://{name}"
        if looks_remote
        else "; give a folder, hf://organisation/name or ms://organisation/name"
    )
    raise ModelNotFoundError(f"{where}: there is no folder {str(folder)!r}{advice}{nearest(asked, aliases)}")


def _parsed_or_none(model_id: str) -> Address | None:
    """The address that an id spells, or None for anything else."""
    try:
        return parse(model_id)
    except ConfigError:
        return None


def _follow(name: str, aliases: Mapping[str, str]) -> str:
    """Through aliases of aliases to the last name."""
    seen = [name]
    while name in aliases:
        name = aliases[name]
        if name in seen:
            raise ConfigError(f"the model aliases lead in a circle: {' -> '.join([*seen, name])}")
        seen.append(name)
    return name


def _aliases_of_environment() -> dict[str, str]:
    text = os.environ.get(ALIASES_VARIABLE)
    if not text:
        return {}
    try:
        aliases = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{ALIASES_VARIABLE} is no JSON ({error}): {text!r}") from error
    if not isinstance(aliases, dict) or not all(isinstance(target, str) and target for target in aliases.values()):
        raise ConfigError(f"{ALIASES_VARIABLE} must be a JSON object of model id to folder or other id, not {text!r}")
    return aliases


def _is_offline(hub: str) -> bool:
    assert hub in HUBS
    return any(
        os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")
        for variable in (OFFLINE_VARIABLE, *OFFLINE_VARIABLES[hub])
    )
