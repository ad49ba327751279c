"""The pages of a queue: what each path answers. No sockets here; `http.Endpoint` serves them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import TransferQueueError
from transfer_queue.ledger.explain import Explanation
from transfer_queue.metrics import QueueCollector
from transfer_queue.readiness import STALL_S, hindrance
from transfer_queue.status import Figures, Progress, encode, status_of

log = logging.getLogger(__name__)

ANSWER_S = 0.8
"""For the controller's answer: those who poll wait a second."""
PATHS = ("/metrics", "/readyz", "/why", "/v1/status")


class Page(msgspec.Struct, frozen=True):
    """A reply: HTTP status, content type and body."""

    status: int
    content_type: str
    body: bytes


class Pages:
    """Answers for one queue, which it asks as a client of its own with a short deadline.

    Args:
        controller_info: what `controller.get_info()` gave.
        registry: further figures for /metrics; the queue's are added to it.
        progress: where training stands, for /v1/status.
        answer_s: how long the controller may take.
        stall_s: see `readiness`.
    """

    def __init__(
        self,
        controller_info: Mapping[str, Any],
        *,
        registry: CollectorRegistry | None = None,
        progress: Progress | None = None,
        answer_s: float = ANSWER_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._client = TransferQueueClient("http", controller_info, call_timeout_s=answer_s)
        self._registry = registry if registry is not None else CollectorRegistry()
        self._registry.register(QueueCollector(self._client.stats))
        self._progress = progress if progress is not None else Progress()
        self._told: Figures | None = None
        self._telling = threading.Condition()
        self._stall_s = stall_s
        self._pages: dict[str, Callable[[dict[str, list[str]], str], Page]] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/why": self._why,
            "/v1/status": self._status,
        }

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def get(self, target: str, accept: str = "") -> Page:
        """The page of a path with its query; whatever goes wrong is a page too."""
        try:
            parts = urlsplit(target)
            page = self._pages.get(parts.path)
            if page is None:
                return text_page(404, f"There is no such page; there are {', '.join(PATHS)}.")
            return page(parse_qs(parts.query, max_num_fields=8), accept)
        except TransferQueueError as error:
            return text_page(503, str(error))
        except ValueError as error:
            return text_page(400, f"The address cannot be read: {error}.")
        except Exception as error:
            log.exception("a page failed")
            return text_page(500, f"The page failed: {type(error).__name__}.")

    def await_reader(self, within_s: float) -> bool:
        """Wait until /v1/status has told somebody the newest figures; False when nobody asked in that time."""
        with self._telling:
            return self._telling.wait_for(lambda: self._told is self._progress.now, within_s)

    def _metrics(self, query: dict[str, list[str]], accept: str) -> Page:
        encoder, content_type = choose_encoder(accept)
        return Page(200, content_type, encoder(self._registry))

    def _readyz(self, query: dict[str, list[str]], accept: str) -> Page:
        reason = hindrance(self._client.stats(), self._stall_s)
        return text_page(200, "ready") if reason is None else text_page(503, reason)

    def _why(self, query: dict[str, list[str]], accept: str) -> Page:
        stands = self._client.survey(query.get("task", [None])[0]).explanations
        if _prefers_text(accept):
            return text_page(200, "\n".join(map(told, stands)) or "No task has asked for rows yet.")
        return Page(200, "application/json", msgspec.json.encode(stands))

    def _status(self, query: dict[str, list[str]], accept: str) -> Page:
        """The document; without a controller 503 and its head alone, so that nobody takes zeros for counts."""
        try:
            surveyed = self._client.survey()
        except TransferQueueError as error:
            unknown = {"schema": 1, "ready": False, "reason": str(error)[:256]}
            return Page(503, "application/json", msgspec.json.encode(unknown))
        figures = self._progress.now
        document = encode(status_of(surveyed, figures, hindrance(surveyed.stats, self._stall_s)))
        with self._telling:
            self._told = figures
            self._telling.notify_all()
        return Page(200, "application/json", document)


def told(stand: Explanation) -> str:
    """Where a task stands, in lines for a person: the sentence, then each reason with how many and which."""
    lines = [
        f"  {reason.rows} {reason.detail}{f' ({reason.which})' if reason.which else ''}" for reason in stand.reasons
    ]
    return "\n".join([stand.head, *lines])


def text_page(status: int, text: str) -> Page:
    """A page of plain text."""
    return Page(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"))


def _prefers_text(accept: str) -> bool:
    """Whether text/plain is named, and JSON is not named before it."""
    kinds = [kind.split(";")[0].strip() for kind in accept.split(",")]
    return "text/plain" in kinds and "application/json" not in kinds[: kinds.index("text/plain")]
