"""The arguments of a program as Hydra wants them: its options first, then the overrides."""

from collections.abc import Iterable, Sequence

from twinkle.choices import nearest
from twinkle.entrypoints import explain
from twinkle.errors import ConfigError

OPTIONS = (
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd", "--experimental-rerun", "--info", "-i",
)  # fmt: skip
WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun", "--info", "-i",
)  # fmt: skip


def options_first(arguments: Sequence[str], settings: Iterable[str]) -> list[str]:
    """The same arguments, so that an option such as ``-m`` may stand anywhere.

    Raises:
        ConfigError: one with dashes is no option, for example a setting that was written with them.
    """
    options, overrides, known = list[str](), list[str](), set(settings)
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, _, _ = argument.partition("=")
        if name not in OPTIONS:
            raise ConfigError(_no_option(argument, name, known))
        options.append(argument)
        if argument in WITH_VALUE and left and "=" not in left[0]:
            options.append(left.pop(0))
    return options + overrides


def _no_option(argument: str, name: str, known: set[str]) -> str:
    setting = name.lstrip("-")
    if setting in known:
        value = argument.lstrip("-") if "=" in argument else f"{setting}=VALUE"
        return f"{argument!r} is no option: settings are written without dashes, {value}."
    if any(key.endswith(f".{setting}") for key in known):
        return (
            f"{argument!r} is no option: settings are written without dashes{explain.nearest(setting, sorted(known))}"
        )
    return f"{argument!r} is no option{nearest(name, [each for each in OPTIONS if each.startswith('--')])}"
