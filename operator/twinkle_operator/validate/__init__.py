"""What the API server and the operator would refuse of a stack, found without either."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinkle_operator.validate.stack import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    """`check` needs a CEL interpreter; reading YAML does not, so it is loaded when it is asked for."""
    if name == "check":
        from twinkle_operator.validate.stack import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
