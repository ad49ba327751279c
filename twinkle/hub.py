"""From a model id to a local folder."""

import json
import os
from pathlib import Path

from twinkle.choices import nearest
from twinkle.errors import ConfigError, ModelNotFoundError

ALIASES_VARIABLE = "TWINKLE_MODEL_ALIASES"
REMOTE_SCHEMES = ("hf://", "ms://")


def resolve(model_id: str | os.PathLike[str], *, needs: str = "config.json") -> Path:
    """The local folder of a model: the alias of the id if there is one, otherwise the id read as a path.

    Aliases come from the environment variable TWINKLE_MODEL_ALIASES: a JSON object of model id to folder. The folder
    must hold the file ``needs``. Raises ModelNotFoundError that says what to do, ConfigError for a broken variable.
    """
    name = os.fspath(model_id)
    aliases = _aliases()
    folder = Path(aliases.get(name, name)).expanduser()
    if name not in aliases and name.startswith(REMOTE_SCHEMES):
        raise ModelNotFoundError(
            f"model {name!r} is not on this machine and this version downloads nothing; download it by other means and "
            f'give its folder, or set {ALIASES_VARIABLE}=\'{{"{name}": "<folder>"}}\'' + nearest(name, aliases)
        )
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"model {name!r}: there is no folder {str(folder)!r}, and this version downloads nothing; "
            "fetch a model first, for example with: hf download <organisation/model> --local-dir <folder>"
            + nearest(name, aliases)
        )
    if not (folder / needs).is_file():
        raise ModelNotFoundError(
            f"model {name!r}: the folder {str(folder)!r} holds no {needs}; is it the right folder?"
        )
    return folder.resolve()


def _aliases() -> dict[str, str]:
    text = os.environ.get(ALIASES_VARIABLE)
    if not text:
        return {}
    try:
        aliases = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{ALIASES_VARIABLE} is no JSON ({error}): {text!r}") from error
    if not isinstance(aliases, dict) or not all(isinstance(folder, str) for folder in aliases.values()):
        raise ConfigError(f"{ALIASES_VARIABLE} must be a JSON object of model id to folder, not {text!r}")
    return aliases
