"""The Hugging Face Hub, through huggingface_hub: its cache, its environment variables, its tokens."""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from twinkle.errors import ConfigError, DownloadError, ModelNotFoundError, TwinkleError
from twinkle.hub.address import Address
from twinkle.hub.files import BIN, SAFETENSORS, SMALL, UNWANTED, chosen
from twinkle.hub.watch import Stalled, watched

logger = logging.getLogger(__name__)

ANSWER_S = 10.0
BLOCK = 1 << 20
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch(address: Address, needs: str, *, offline: bool, stall_s: float) -> Path:
    """The snapshot folder of a model in the cache of huggingface_hub (HF_HOME), fetched there unless ``offline``.

    A hub that does not answer is no error while the cache holds the revision. What this call fetches is checked
    against the hash that the hub names; a broken file is removed from the cache.
    """
    cache = _library().constants.HF_HUB_CACHE
    folder = Path(cache).expanduser() / ("models--" + address.name.replace("/", "--"))
    before = set(_blobs(folder))

    def download(patterns: Sequence[str]) -> Path:
        return _watched_snapshot(address, patterns, folder, offline=offline, stall_s=stall_s)

    with _errors_in_words(address, offline=offline):
        snapshot = download([*SMALL, *SAFETENSORS])
        if needs == "config.json" and not chosen(os.listdir(snapshot), SAFETENSORS):
            snapshot = download([*SMALL, *BIN])
    _check_hashes(address, folder, sorted(set(_blobs(folder)) - before))
    return snapshot


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ConfigError("models of hf:// need the package huggingface_hub: install twinkle-rl[torch]") from error
    return huggingface_hub


def _endpoint() -> str:
    """HF_ENDPOINT as it is now: the library reads it once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or str(_library().constants.ENDPOINT)).rstrip("/")


def _watched_snapshot(
    address: Address, patterns: Sequence[str], folder: Path, *, offline: bool, stall_s: float
) -> Path:
    """The snapshot, or that of the cache when the hub has fallen silent."""
    if offline:
        return _snapshot(address, patterns, offline=True)
    try:
        work = partial(_snapshot, address, patterns, offline=False)
        return watched(work, folder=folder, stall_s=stall_s, what=f"model {address}")
    except Stalled as stalled:
        try:
            found = _snapshot(address, patterns, offline=True)
        except _library().errors.LocalEntryNotFoundError:
            raise stalled from None
        logger.warning("%s; using what the cache holds: %s", stalled, found)
        return found


def _snapshot(
    address: Address, patterns: Sequence[str], abandoned: threading.Event | None = None, *, offline: bool
) -> Path:
    found = _library().snapshot_download(
        address.name,
        revision=address.revision,
        endpoint=_endpoint(),
        allow_patterns=list(patterns),
        ignore_patterns=list(UNWANTED),
        local_files_only=offline,
        etag_timeout=ANSWER_S,
        tqdm_class=None if abandoned is None else _bar_until(abandoned),
    )
    return Path(found)


def _bar_until(abandoned: threading.Event) -> type:
    """The library's progress bar, which also ends its threads: they would keep the process alive until their files are
    whole, for it has no other way to be told to stop."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if abandoned.is_set():
                raise DownloadError("nobody waits for this download any more")
            return cast("bool | None", super().update(n))

    return Bar


@contextmanager
def _errors_in_words(address: Address, *, offline: bool) -> Iterator[None]:
    """Errors of the library as ours: what a person can mend is a ModelNotFoundError, the rest a DownloadError."""
    errors = _library().errors
    try:
        yield
    except TwinkleError:
        raise
    except errors.HFValidationError as error:
        raise ConfigError(f"model {str(address)!r} is no name on Hugging Face: {error}") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError) as error:
        raise _in_words(address, error, offline=offline) from error
    except Exception as error:
        raise DownloadError(
            f"model {str(address)!r} could not be fetched from {_endpoint()}: {_first(error)}"
        ) from error


def _in_words(address: Address, error: Exception, *, offline: bool) -> TwinkleError:
    errors, name, where = _library().errors, repr(str(address)), _endpoint()
    status = _status(error)
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_cached(name, error, offline=offline)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(
            f"model {name}: {where} has the model, but no revision {address.revision or 'main'!r}; "
            "give a branch, tag or commit that it has"
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelNotFoundError(
            f"model {name} is gated: accept its terms at {where}/{address.name} and give a token "
            "(HF_TOKEN, or: hf auth login)"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelNotFoundError(
            f"model {name}: {where} has no such model, or shows it to its members alone; check the name, "
            "and give a token (HF_TOKEN, or: hf auth login) if it is private"
        )
    return DownloadError(f"model {name} could not be fetched from {where}: {_first(error)}; try again later")


def _not_cached(name: str, error: Exception, *, offline: bool) -> TwinkleError:
    if offline or "OfflineModeIsEnabled" in repr(error.__cause__):
        return ModelNotFoundError(
            f"model {name} is not whole in the cache {_library().constants.HF_HUB_CACHE}, and offline mode forbids "
            "to fetch it: fetch it once with the network, or unset hub.offline, TWINKLE_HUB_OFFLINE and HF_HUB_OFFLINE"
        )
    return DownloadError(
        f"model {name} is not in the cache, and {_endpoint()} does not serve it ({_first(error.__cause__ or error)}); "
        "check the network and HF_ENDPOINT, or give a folder by TWINKLE_MODEL_ALIASES"
    )


def _status(error: Exception) -> int | None:
    return cast("int | None", getattr(getattr(error, "response", None), "status_code", None))


def _first(error: BaseException) -> str:
    """The kind of an error and its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _blobs(folder: Path) -> list[str]:
    try:
        return os.listdir(folder / "blobs")
    except FileNotFoundError:
        return []


def _check_hashes(address: Address, folder: Path, names: Sequence[str]) -> None:
    """Files lie under the hash that the hub named; what is something else is removed, and the error names it."""
    for name in names:
        blob = folder / "blobs" / name
        if not _HASH.fullmatch(name) or not blob.is_file():
            continue  # a mirror's own tag, or another process's file that is on its way
        digest = _digest_of(blob, _git_digest if len(name) == 40 else _sha256)
        if digest == name:
            continue
        links = [link for link in folder.glob("snapshots/*/*") if link.is_symlink() and link.samefile(blob)]
        for path in (*links, blob):
            path.unlink(missing_ok=True)
        files = ", ".join(sorted({link.name for link in links})) or name
        raise DownloadError(
            f"model {str(address)!r}: {files} arrived broken (its hash is {digest[:12]}…, not {name[:12]}…) and was "
            "removed; try again, and look at HF_ENDPOINT if it stays so"
        )


def _sha256(size: int) -> "hashlib._Hash":
    return hashlib.sha256()


def _git_digest(size: int) -> "hashlib._Hash":
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def _digest_of(file: Path, begin: Callable[[int], "hashlib._Hash"]) -> str:
    digest = begin(file.stat().st_size)
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
