"""What went wrong on the command line, as one sentence and an exit code."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import reduce
from importlib.resources import files
from typing import Any, get_args, get_origin, get_type_hints

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from twinkle import choices

BAD_INPUT, FAILURE = 2, 1
EXPERIMENT = "experiment"
WANTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "names with values, such as {name: value}",
    list: "a list, such as [a,b]",
}


def known_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Every setting of a configuration dataclass, written with dots."""
    for field in fields(schema):
        yield f"{prefix}{field.name}"
        if isinstance(field.type, type) and is_dataclass(field.type):
            yield from known_keys(field.type, f"{prefix}{field.name}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: the setting that looks most like ``name``, or whose last part it is, if there is one."""
    known = list(known)
    same_last_part = [key for key in known if key.rpartition(".")[2] == name]
    return choices.nearest(same_last_part[0] if same_last_part else name, known)


def experiments() -> list[str]:
    """Those of this package."""
    names = (each.name for each in files("hydra_conf").joinpath(EXPERIMENT).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def explain(error: HydraException, schema: type, *, groups: Iterable[str] = ()) -> str:
    """The sentence for an error of composing the configuration.

    Args:
        groups: those that fill no part of ``schema`` by their name, such as experiment.
    """
    cause, known = error.__cause__, [*known_keys(schema), *groups]
    if isinstance(error, OverrideParseException):
        return f"The override {error.override!r} cannot be read: write key=value{_meant(error.override, known)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = ", ".join(sorted(error.options or ())) or "none"
        return f"{group}={option} does not exist; {group} has: {options}."
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "")
        if isinstance(cause, ConfigKeyError | AttributeError):
            key = _asked_key(str(error)) or key
            return f"There is no setting {key!r}{nearest(key, known)}"
        wanted = _wanted(schema, key) if isinstance(cause, ValidationError) else None
        if wanted is not None:
            return f"{key}={_asked_value(str(error), key)!r}: give {wanted}."
        return f"{key}: {str(cause.msg or cause).splitlines()[0]}."
    return str(error).splitlines()[0]


def _meant(word: str, known: list[str]) -> str:
    """The end of a sentence: what a word without a value may stand for."""
    options = experiments() if EXPERIMENT in known else []
    meant = {**{key: f"{key}=..." for key in known}, **{name: f"{EXPERIMENT}={name}" for name in options}}
    close = [] if "=" in word else get_close_matches(word, meant, n=1, cutoff=0.8)
    return f"; did you mean {meant[close[0]]}?" if close else ", and quote what the shell would eat."


def _asked_key(message: str) -> str:
    """The key between the quotes of Hydra's "Could not override 'a.b'"."""
    return message.split("'")[1] if message.startswith("Could not override '") else ""


def _asked_value(message: str, key: str) -> str:
    """The value behind the key in Hydra's "Error merging override a.b=value"."""
    return message.splitlines()[0].partition(f"{key}=")[2]


def _wanted(schema: type, key: str) -> str | None:
    """What a setting takes, in words; None for a key that is no setting."""
    try:
        kind: Any = reduce(lambda part, name: get_type_hints(part)[name], key.split("."), schema)
    except (KeyError, TypeError):
        return None
    allowed = get_args(kind) if type(None) in get_args(kind) else (kind,)
    words = [WANTED.get(get_origin(each) or each) for each in allowed if each is not type(None)]
    return None if None in words else " or ".join([*map(str, words), *(["null"] if len(allowed) > 1 else [])])
