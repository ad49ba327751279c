"""What the API server and the operator would refuse of a stack, found without either."""

from twinkle_operator.validate.stack import check

__all__ = ["check"]
