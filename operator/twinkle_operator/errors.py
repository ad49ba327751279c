"""What goes wrong between the operator and the API server.

OperatorError
├── Unreachable        no answer: refused, dropped or too slow; try again
├── Outdated           the cache is behind the server; look again
├── NameTaken          an object of that name is not this stack's
└── ApiError           the server answered with an error
    ├── NotFound       404
    ├── Conflict       409: somebody else was first
    ├── Gone           410: a list or watch has to begin anew
    ├── Forbidden      403: rights, quotas and admission
    │   └── NamespaceEnds   nothing new is made in a namespace that is being deleted; the stack goes with it
    ├── Unauthorized   401: log in again
    ├── Refused        400, 422 and 500 "typed patch": what was sent is wrong; never try the same again
    └── Busy           429 and 5xx; try again, not before `retry_after`
"""

from __future__ import annotations

import msgspec

TYPED_PATCH = "typed patch"
"""In the text of the 500 by which server-side apply refuses a field that the schema does not declare."""
TERMINATING = "NamespaceTerminating"
"""The cause of a 403 in a namespace that is being deleted."""
TEXT = 4096
"""Characters of an answer that are kept."""


class OperatorError(Exception):
    """Base of all errors of the operator."""


class Unreachable(OperatorError):
    """No answer came."""


class Outdated(OperatorError):
    """What the cache holds is not what the server has."""


class NameTaken(OperatorError):
    """The name of a child belongs to an object that the stack does not own."""


class ApiError(OperatorError):
    """The server's answer: `status` is HTTP's, `fields` are (path, what is wrong), `retry_after` is in seconds."""

    def __init__(
        self,
        what: str,
        *,
        status: int,
        message: str = "",
        fields: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{what} was answered with {status}: {message or 'no text'}")
        self.status = status
        self.message = message
        self.fields = fields
        self.retry_after = retry_after


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409."""


class Gone(ApiError):
    """410."""


class Forbidden(ApiError):
    """403."""


class NamespaceEnds(Forbidden):
    """403, for its namespace is being deleted."""


class Unauthorized(ApiError):
    """401."""


class Refused(ApiError):
    """400, 422, or 500 with "typed patch" in its text."""


class Busy(ApiError):
    """429 or 5xx."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: Refused,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Refused,
    429: Busy,
}


class _Cause(msgspec.Struct):
    reason: str = ""
    field: str = ""
    message: str = ""


class _Details(msgspec.Struct, rename="camel"):
    causes: list[_Cause] = msgspec.field(default_factory=list)
    retry_after_seconds: float | None = None


class _Answer(msgspec.Struct):
    message: str = ""
    details: _Details | None = None


def api_error(what: str, status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error that an answer means; a body that is no `Status` of Kubernetes is kept as text."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Answer(body.decode(errors="replace"))
    details = answer.details or _Details()
    if status >= 500:
        kind: type[ApiError] = Refused if TYPED_PATCH in answer.message else Busy
    else:
        kind = BY_STATUS.get(status, ApiError)
    if kind is Forbidden and any(cause.reason == TERMINATING for cause in details.causes):
        kind = NamespaceEnds
    return kind(
        what,
        status=status,
        message=answer.message[:TEXT],
        fields=tuple((cause.field, cause.message) for cause in details.causes if cause.field),
        retry_after=_seconds(retry_after) or details.retry_after_seconds,
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
