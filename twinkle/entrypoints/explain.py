"""What went wrong on the command line, as one sentence and an exit code."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from twinkle import choices

BAD_INPUT, FAILURE = 2, 1


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


def explain(error: HydraException, schema: type) -> str:
    """The sentence for an error of composing the configuration."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        return f"The override {error.override!r} cannot be read: write key=value, and quote what the shell would eat."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = ", ".join(sorted(error.options or ())) or "none"
        return f"{group}={option} does not exist; {group} has: {options}."
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "")
        if isinstance(cause, ConfigKeyError | AttributeError):
            key = _asked_key(str(error)) or key
            return f"There is no setting {key!r}{nearest(key, [*known_keys(schema), 'experiment'])}"
        return f"{key}: {str(cause.msg or cause).splitlines()[0]}."
    return str(error).splitlines()[0]


def _asked_key(message: str) -> str:
    """The key between the quotes of Hydra's "Could not override 'a.b'"."""
    return message.split("'")[1] if message.startswith("Could not override '") else ""
