"""What is asked of ModelScope over HTTP: the files of a repository, its revisions, and the bytes of a file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from twinkle.choices import nearest
from twinkle.errors import DownloadError, ModelNotFoundError
from twinkle.hub.address import Address

DEFAULT_ENDPOINT = "https://www.modelscope.cn"
DEFAULT_REVISION = "master"
CONNECT_S, ANSWER_S = 10.0, 30.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Unreachable(DownloadError):
    """The hub does not answer, or answers that it cannot: what the cache holds may still serve."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it. ``size`` is in bytes; ``sha256`` is "" where the hub names none.

    ``key`` is the name of its blob: the hash, or without one what else tells it from other files.
    """

    path: str
    size: int
    sha256: str
    revision: str

    @property
    def key(self) -> str:
        return self.sha256 or re.sub(r"[^\w.-]", "_", f"unchecked-{self.path}-{self.revision}-{self.size}")


def endpoint() -> str:
    """MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN, with https:// where no scheme is given."""
    text = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or DEFAULT_ENDPOINT
    text = text.strip().rstrip("/")
    return text if text.startswith(("http://", "https://")) else f"https://{text}"


class ModelScope:
    """One model on the hub. A token in MODELSCOPE_API_TOKEN is sent to the hub, and to no server it redirects to."""

    def __init__(self, address: Address) -> None:
        self.address, self.endpoint = address, endpoint()
        self._revision = address.revision or DEFAULT_REVISION
        self._session = requests.Session()
        self._token = os.environ.get("MODELSCOPE_API_TOKEN", "").strip()

    def files(self) -> list[RemoteFile]:
        """The files of the revision, folders left out."""
        query = {"Revision": self._revision, "Recursive": "True"}
        answer = self._get("repo/files", query, {}, stream=False)
        if answer.status_code == 404:
            raise self._not_found()
        data = self._data(answer)
        listed = data.get("Files") if isinstance(data, Mapping) else data
        if not isinstance(listed, list):
            raise DownloadError(f"{self._what}: {self.endpoint} lists no files, but {str(data)[:80]!r}")
        return [_file(entry) for entry in listed if entry.get("Type") != "tree"]

    def open(self, path: str, start: int) -> requests.Response:
        """The bytes of a file from ``start`` on, as a stream that the caller closes."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        answer = self._get("repo", {"Revision": self._revision, "FilePath": path}, headers, stream=True)
        if answer.status_code != 416:
            try:
                self._check(answer)
            except DownloadError:
                answer.close()
                raise
        return answer

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    @property
    def _what(self) -> str:
        return f"model {str(self.address)!r}"

    def _get(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], *, stream: bool
    ) -> requests.Response:
        url = f"{self.endpoint}/api/v1/models/{self.address.name}/{path}"
        token = (
            {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"} if self._token else {}
        )
        try:
            return self._session.get(
                url, params=query, headers={**headers, **token}, stream=stream, timeout=(CONNECT_S, ANSWER_S)
            )
        except requests.RequestException as error:
            raise Unreachable(
                f"{self._what}: {self.endpoint} does not answer ({type(error).__name__}); check the network and "
                "MODELSCOPE_DOMAIN, or give a folder by TWINKLE_MODEL_ALIASES"
            ) from error

    def _check(self, answer: requests.Response) -> None:
        """Raise what a status other than success means."""
        status = answer.status_code
        if status in (401, 403):
            raise ModelNotFoundError(
                f"{self._what}: {self.endpoint} shows it to its members alone (HTTP {status}); put a token into "
                "MODELSCOPE_API_TOKEN"
            )
        if status == 404:
            raise DownloadError(f"{self._what}: a file that {self.endpoint} lists is not there (HTTP 404)")
        if status == 429 or status >= 500:
            busy = "asks to slow down" if status == 429 else "fails"
            raise Unreachable(f"{self._what}: {self.endpoint} {busy} (HTTP {status}); try again later")
        if status >= 400:
            raise DownloadError(f"{self._what}: {self.endpoint} refuses (HTTP {status}): {answer.text[:80]!r}")

    def _data(self, answer: requests.Response) -> Any:
        self._check(answer)
        try:
            return answer.json()["Data"]
        except (ValueError, KeyError, TypeError) as error:
            raise DownloadError(
                f"{self._what}: {self.endpoint} answers {answer.text[:80]!r}; does MODELSCOPE_DOMAIN name ModelScope?"
            ) from error

    def _not_found(self) -> ModelNotFoundError:
        """Which of the two is not there: the model or its revision."""
        answer = self._get("revisions", {}, {}, stream=False)
        if answer.status_code != 200:
            return ModelNotFoundError(
                f"{self._what}: {self.endpoint} has no such model, or shows it to its members alone; check the name, "
                "and put a token into MODELSCOPE_API_TOKEN if it is private"
            )
        known = _revisions(self._data(answer))
        return ModelNotFoundError(
            f"{self._what}: {self.endpoint} has the model, but no revision {self._revision!r}; it has "
            f"{', '.join(known) or 'none'}" + nearest(self._revision, known)
        )


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    sha256 = str(entry.get("Sha256") or "").lower()
    path = str(entry["Path"])
    if path.startswith("/") or ".." in path.split("/"):
        raise DownloadError(f"the hub lists the path {path!r}, which leads out of the model's folder")
    return RemoteFile(
        path, int(entry.get("Size") or 0), sha256 if _SHA256.fullmatch(sha256) else "", str(entry.get("Revision") or "")
    )


def _revisions(data: Any) -> list[str]:
    listed = data.get("RevisionMap", data) if isinstance(data, Mapping) else {}
    kinds = (listed.get(kind) or [] for kind in ("Branches", "Tags"))
    return [str(entry["Revision"]) for entries in kinds for entry in entries]
