"""The CustomResourceDefinition and its reference page, made from the types in `spec` and `state`."""

from twinkle_operator.crd.definition import definition

__all__ = ["definition"]
