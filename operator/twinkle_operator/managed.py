"""What of an object is ours: the fields that server-side apply records under our field manager.

The object cut down to them equals the manifest last applied, until somebody changes, takes or removes one of those
fields; fields of others, defaults and status never show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from twinkle_operator.resources import Manifest
from twinkle_operator.words import FIELD_MANAGER

_IDENTITY = ("name", "namespace", "uid")


def owned(live: Manifest, manager: str = FIELD_MANAGER) -> Manifest:
    """The fields of a live object that `manager` applied, without kind and identity; empty if it applied nothing."""
    for entry in live.get("metadata", {}).get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            cut = _cut(live, entry.get("fieldsV1") or {})
            return cut if isinstance(cut, dict) else {}
    return {}


def digest(manifest: Manifest) -> bytes:
    """Of a manifest, or of `owned`: equal for equal fields in any order; kind and identity do not count."""
    body = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    metadata = {name: value for name, value in (body.pop("metadata", None) or {}).items() if name not in _IDENTITY}
    text = msgspec.json.encode([metadata, body], order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()


def _cut(value: Any, fields: Any) -> Any:
    """Anybody may write managedFields: paths that do not fit the value name nothing of it."""
    children = {path: below for path, below in fields.items() if path != "."} if isinstance(fields, dict) else {}
    if not children:
        return value  # a leaf, or a list or map that is owned as a whole
    if isinstance(value, dict):
        return {
            name: _cut(value[name], below)
            for path, below in children.items()
            if (name := path.removeprefix("f:")) in value
        }
    if isinstance(value, list):
        named = [(_names(path), below) for path, below in children.items()]
        return [_cut(item, below) for index, item in enumerate(value) for names, below in named if names(index, item)]
    return value


def _names(path: str) -> Callable[[int, Any], bool]:
    """Whether a path element names an item of a list: by key, by value or by index."""
    how, _, what = path.partition(":")
    try:
        wanted = msgspec.json.decode(what)
    except msgspec.DecodeError:
        return lambda index, item: False
    if how == "i":
        return lambda index, _: index == wanted
    if how == "v":
        return lambda _, item: bool(item == wanted)
    if how != "k" or not isinstance(wanted, dict):
        return lambda index, item: False
    return lambda _, item: isinstance(item, dict) and all(item.get(name) == part for name, part in wanted.items())
