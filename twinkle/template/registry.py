"""Templates by name."""

import inspect
from typing import Any

from twinkle.choices import nearest
from twinkle.errors import ConfigError
from twinkle.template.base import ChatTemplate, PlainTemplate, Template

TEMPLATES: dict[str, type[Template]] = {"auto": Template, "chat": ChatTemplate, "plain": PlainTemplate}


def make_template(template_cls: Template | type[Template] | str, tokenizer: Any, **kwargs: Any) -> Template:
    """A template for a tokenizer from an instance (returned as it is), a class, or a name: auto, chat or plain.

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
    known = [name for name in inspect.signature(template_cls).parameters if name != "tokenizer"]
    for name in kwargs:
        if name not in known:
            raise ConfigError(
                f"{template_cls.__name__} has no argument {name!r}; it has {known}" + nearest(name, known)
            )
    return template_cls(tokenizer, **kwargs)


def _is_template_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Template)


def _named(name: str) -> type[Template]:
    if name not in TEMPLATES:
        raise ConfigError(f"unknown template {name!r}; known: {list(TEMPLATES)}" + nearest(name, TEMPLATES))
    return TEMPLATES[name]
