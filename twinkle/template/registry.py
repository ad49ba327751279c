"""Templates by name."""

import inspect
from typing import Any

from twinkle.choices import nearest
from twinkle.errors import ConfigError
from twinkle.template.base import ChatTemplate, PlainTemplate, Template
from twinkle.template.named import ChatMLTemplate, Llama3Template

TEMPLATES: dict[str, type[Template]] = {
    "auto": Template,
    "chat": ChatTemplate,
    "plain": PlainTemplate,
    "chatml": ChatMLTemplate,
    "qwen": ChatMLTemplate,
    "llama3": Llama3Template,
}


def make_template(template_cls: Template | type[Template] | str, tokenizer: Any, **kwargs: Any) -> Template:
    """A template for a tokenizer from an instance (returned as it is), a class, or a name: auto, chat, plain, chatml
    (qwen) or llama3.

    ``kwargs`` go to the class. An unknown name or keyword is a ConfigError with the nearest one.
    """
    if isinstance(template_cls, Template):
        if kwargs:
            raise ConfigError(
                f"arguments {sorted(kwargs)} came with a template that exists already; give its class instead"
            )
        return template_cls
    if isinstance(template_cls, str):
        template_cls = _named(template_cls)
    if not _is_template_class(template_cls):
        raise ConfigError(
            f"template is {template_cls!r}; it must be a Template, a class of it, or one of {list(TEMPLATES)}"
        )
    known = _arguments_of(template_cls)
    for name in kwargs:
        if name not in known:
            raise ConfigError(
                f"{template_cls.__name__} has no argument {name!r}; it has {known}" + nearest(name, known)
            )
    return template_cls(tokenizer, **kwargs)


def _arguments_of(template_cls: type[Template]) -> list[str]:
    """Names of what a class takes; one that hands everything on takes what Template takes."""
    parameters = inspect.signature(template_cls).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if any(each.kind == each.VAR_KEYWORD for each in parameters):
        names += list(inspect.signature(Template).parameters)
    return [name for name in dict.fromkeys(names) if name != "tokenizer"]


def _is_template_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Template)


def _named(name: str) -> type[Template]:
    if name not in TEMPLATES:
        raise ConfigError(f"unknown template {name!r}; known: {list(TEMPLATES)}" + nearest(name, TEMPLATES))
    return TEMPLATES[name]
