"""Where the command line finds a running queue: a run's folder, a file that names the queue, or its HTTP endpoint."""

import http.client
from contextlib import closing
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ConfigurationError, ControllerLostError
from transfer_queue.info_file import read_info
from transfer_queue.ledger.explain import Explanation
from twinkle.errors import ConfigError

ANSWER_S = 5.0
MOST_BYTES = 1 << 22
QUEUE_FILE = "queue.json"


class Source(Protocol):
    """Something that knows where the tasks stand."""

    def stands(self, task: str | None) -> list[Explanation]:
        """Of every task, or of one; TransferQueueError when the queue cannot be reached."""

    def close(self) -> None:
        """Give back what it holds."""


class Direct:
    """A queue that is reached as its clients reach it."""

    def __init__(self, file: Path):
        self.client = TransferQueueClient("twinkle", _info(file), call_timeout_s=ANSWER_S)

    def stands(self, task: str | None) -> list[Explanation]:
        """Of every task, or of one."""
        return self.client.survey(task).explanations

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class Remote:
    """A queue's HTTP endpoint. Redirects are not followed, and the answer is bounded."""

    def __init__(self, url: str):
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"--url {url} cannot be read: {error}.") from error
        if parts.scheme not in ("http", "https") or not self._host:
            raise ConfigError(f"--url {url} is no address of an endpoint, such as http://127.0.0.1:9400.")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._url, self._path = url, parts.path.rstrip("/")

    def stands(self, task: str | None) -> list[Explanation]:
        """Of every task, or of one."""
        query = "" if task is None else "?" + urlencode({"task": task})
        assert self._host is not None
        try:
            with closing(self._kind(self._host, self._port, timeout=ANSWER_S)) as connection:
                connection.request("GET", f"{self._path}/why{query}", headers={"Accept": "application/json"})
                reply = connection.getresponse()
                status, text = reply.status, reply.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ControllerLostError(f"{self._url} cannot be reached: {str(error) or type(error).__name__}") from error
        if status == 503:
            raise ControllerLostError(text.decode(errors="replace").strip())
        try:
            return msgspec.json.decode(text, type=list[Explanation])
        except msgspec.DecodeError as error:
            raise ConfigError(f"--url {self._url} is no queue's endpoint: it answered /why with {status}.") from error

    def close(self) -> None:
        """Nothing is held."""


def file_of_run(folder: Path) -> Path:
    """The file in which a run names its queue; ConfigError if the folder is none."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no run folder: name one with --run, or the queue with --queue FILE or --url URL."
        )
    if not (folder / QUEUE_FILE).exists():
        raise ControllerLostError(f"{folder} has no {QUEUE_FILE}: its run has ended, or has not begun")
    return folder / QUEUE_FILE


def _info(file: Path) -> dict[str, object]:
    if not file.exists() and file.absolute().parent.is_dir():
        raise ControllerLostError(f"{file} does not exist: no queue is running there")
    try:
        return read_info(file)
    except ConfigurationError as error:
        raise ConfigError(f"{error}.") from error
