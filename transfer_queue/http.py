"""What a queue tells over HTTP: /metrics, /readyz, /why and /v1/status, the same for every process that serves it.

Only GET, only these paths, and no caller costs more than a thread for some seconds: heads, replies, the number of
connections and the controller's answer are all bounded.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any

from transfer_queue.errors import ConfigurationError
from transfer_queue.pages import Page, Pages, text_page

log = logging.getLogger(__name__)

HEAD_S = 5.0
"""In which a caller must have sent the head of its request."""
HEAD_BYTES = 8192
REPLY_S = 5.0
"""In which a caller must have read its reply."""
CONNECTIONS = 32
"""Served at once; one more is told to come back."""


class Endpoint:
    """Serves `pages` in threads of its own until the block ends; `port` 0 takes a free one.

    Raises:
        ConfigurationError: nobody can listen there; one sentence that names host and port.
    """

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"port {port} is no port: 0 to 65535")
        try:
            self._server = _Server(host, port, pages)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise ConfigurationError(f"port {port} on {host} {why}: choose another") from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True, name="http"
        )

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    """A thread for each connection, so that one that says nothing holds nobody up."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it in a thread, or refuse it at once."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        request.setblocking(False)
        try:
            request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
        except OSError:
            log.debug("a caller that was refused is gone already")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread: serve it, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up, or that sent or read too slowly, is none of our errors."""
        log.debug("a caller over HTTP went away", exc_info=True)


class _TooLarge(Exception):
    """The head of the request does not end."""


class _Handler(BaseHTTPRequestHandler):
    """One request of one connection. The head is read as a whole, with one deadline, before anything looks at it."""

    server: _Server
    default_request_version = "HTTP/1.0"  # what cannot be read is refused with a status line too

    def handle(self) -> None:
        """Answer one request; a caller that sends none in time is left alone."""
        try:
            head = _read_head(self.connection)
        except _TooLarge:
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(431, f"The head of a request has at most {HEAD_BYTES} bytes here.")
            return
        if head:
            self.rfile = BytesIO(head)
            self.handle_one_request()

    def do_GET(self) -> None:
        """The page of this path."""
        self._reply(self.server.pages.get(self.path, self.headers.get("Accept", "")))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal of the server's own: one line of text."""
        if code == 501:
            page = text_page(405, "Only GET is served here.")
        else:
            page = text_page(code, message or "This is no HTTP request that can be answered.")
        self._reply(page)

    def _reply(self, page: Page) -> None:
        self.connection.settimeout(REPLY_S)
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if page.status == 405:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def version_string(self) -> str:
        """Who answers; which Python it runs on is nobody's business."""
        return "transfer_queue"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the run."""


def _read_head(connection: socket.socket) -> bytes:
    """Everything up to the empty line, and what came with it; empty if it does not come in time."""
    head, deadline = b"", time.monotonic() + HEAD_S
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left = deadline - time.monotonic()
        if left <= 0:
            return b""
        connection.settimeout(left)
        try:
            more = connection.recv(HEAD_BYTES)
        except TimeoutError:
            return b""
        if not more:
            return b""
        head += more
        if len(head) > HEAD_BYTES:
            raise _TooLarge
    return head
