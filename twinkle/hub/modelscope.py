"""ModelScope: a small client of our own with a cache that a crash, a second process or a moving branch cannot spoil.

    <MODELSCOPE_CACHE>/twinkle/<organisation>--<name>/
        blobs/<sha256>                 a file, complete and checked; <sha256>.incomplete while it arrives
        snapshots/<digest>/<file>      links to blobs: what one revision was when it was listed
        refs/<revision>                the digest that the revision led to last

Everything becomes visible by one rename. What the modelscope library has downloaded is taken from its folders where the
hash agrees, and used as it is in offline mode.
"""

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from twinkle.errors import DownloadError, ModelNotFoundError
from twinkle.hub.address import Address
from twinkle.hub.files import wanted
from twinkle.hub.modelscope_api import DEFAULT_REVISION, ModelScope, RemoteFile, Unreachable
from twinkle.hub.transfer import sha256_of, transfer
from twinkle.hub.watch import Stalled, watched

logger = logging.getLogger(__name__)


def fetch(address: Address, needs: str, *, offline: bool, stall_s: float) -> Path:
    """The snapshot folder of a model, fetched unless ``offline``.

    A hub that does not answer is no error while the cache holds the revision.
    """
    cache = Cache(cache_root(), address)
    if offline:
        return cache.known(needs) or cache.of_the_library(needs) or _refuse_offline(address, cache)
    try:
        return watched(lambda _: _fill(cache, address), folder=cache.folder, stall_s=stall_s, what=f"model {address}")
    except (Unreachable, Stalled) as error:
        found = cache.known(needs)
        if found is None:
            raise
        logger.warning("%s; using what the cache holds: %s", error, found)
        return found


def _fill(cache: "Cache", address: Address) -> Path:
    with closing(ModelScope(address)) as hub:
        return cache.fill(hub)


def cache_root() -> Path:
    """MODELSCOPE_CACHE, or where the modelscope library keeps its files."""
    return Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope").expanduser()


def _refuse_offline(address: Address, cache: "Cache") -> Path:
    raise ModelNotFoundError(
        f"model {str(address)!r} is not in the cache {str(cache.folder)!r}, and offline mode forbids to fetch it: "
        "fetch it once with the network, or unset hub.offline and TWINKLE_HUB_OFFLINE"
    )


class Cache:
    """The folder of one model."""

    def __init__(self, root: Path, address: Address) -> None:
        self.root, self.address = root, address
        self.folder = root / "twinkle" / address.name.replace("/", "--")
        self._revision = address.revision or DEFAULT_REVISION

    def known(self, needs: str) -> Path | None:
        """The snapshot that the revision led to last, if it is there."""
        try:
            digest = self._ref.read_text().strip()
        except FileNotFoundError:
            return None
        snapshot = self.folder / "snapshots" / digest
        return snapshot if (snapshot / needs).is_file() else None

    def of_the_library(self, needs: str) -> Path | None:
        """The folder of the modelscope library, whose files nobody has checked."""
        folders = (folder for folder in self._library_folders() if (folder / needs).is_file())
        return next(folders, None)

    def fill(self, hub: ModelScope) -> Path:
        """Fetch what is missing of the revision's files, and return their snapshot."""
        listed = {file.path: file for file in hub.files()}
        files = [listed[path] for path in wanted(listed)]
        if not files:
            raise ModelNotFoundError(
                f"model {str(self.address)!r} has no file that a model, tokenizer or adapter needs"
            )
        for file in files:
            self._blob(file, hub)
        digest = hashlib.sha256("\n".join(f"{file.path} {file.key}" for file in files).encode()).hexdigest()[:40]
        snapshot = self._link(digest, files)
        _write_text(self._ref, digest)
        return snapshot

    @property
    def _ref(self) -> Path:
        return self.folder / "refs" / quote(self._revision, safe="")

    def _blob(self, file: RemoteFile, hub: ModelScope) -> None:
        blob = self.folder / "blobs" / file.key
        if blob.is_file():
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{blob}.lock"):  # waits as long as its holder makes progress: see watched
            if blob.is_file():
                return
            partial = blob.with_name(f"{file.key}.incomplete")
            if not self._copy_from_library(file, partial):
                transfer(lambda start: hub.open(file.path, start), partial, file, self.address)
            partial.replace(blob)

    def _copy_from_library(self, file: RemoteFile, target: Path) -> bool:
        for folder in self._library_folders():
            candidate = folder / file.path
            if file.sha256 and candidate.is_file() and candidate.stat().st_size == file.size:
                shutil.copyfile(candidate, target)
                if sha256_of(target) == file.sha256:
                    return True
                target.unlink()
        return False

    def _library_folders(self) -> list[Path]:
        organisation, name = self.address.name.split("/")
        old = Path("models") / organisation / name.replace(".", "___")
        new = Path("models") / f"{organisation}--{name}" / "snapshots" / self._revision
        return [self.root / new, *([self.root / old, self.root / "hub" / old] if not self.address.revision else [])]

    def _link(self, digest: str, files: Sequence[RemoteFile]) -> Path:
        snapshot = self.folder / "snapshots" / digest
        if snapshot.is_dir():
            return snapshot
        draft = self.folder / f".draft-{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        for file in files:
            (draft / file.path).symlink_to(Path("../../blobs") / file.key)
        snapshot.parent.mkdir(exist_ok=True)
        try:
            draft.rename(snapshot)
        except OSError as error:
            shutil.rmtree(draft)
            if not snapshot.is_dir():  # otherwise another process was first, with the same links
                raise DownloadError(f"model {str(self.address)!r}: {snapshot} cannot be written ({error})") from error
        return snapshot


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_text(text)
    draft.replace(path)
