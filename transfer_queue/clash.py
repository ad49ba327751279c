"""Notices at import that another distribution has put its files where ours lie."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable


def installed_as(distribution: str, paths: Iterable[str]) -> str | None:
    """The folder in which a distribution of that name is installed, or None.

    Reads directory listings only: `importlib.metadata` alone would cost more than the whole import of this package.
    """
    wanted = _normal(distribution)
    for path in paths:
        try:
            names = os.listdir(path or ".")
        except OSError:
            continue
        for name in names:
            stem, dot, kind = name.rpartition(".")
            if dot and kind in ("dist-info", "egg-info") and _normal(stem.split("-")[0]) == wanted:
                return path
    return None


def refuse_clash(distribution: str, package: str, paths: Iterable[str] | None = None) -> None:
    """`ClashError` (an ImportError) with what to uninstall, if that distribution is in the same environment."""
    where = installed_as(distribution, sys.path if paths is None else paths)
    if where is not None:
        from transfer_queue.errors import ClashError

        raise ClashError(
            f"the distribution {distribution!r} in {where} also installs a package {package!r} and would be mixed up "
            f"with this one: pip uninstall {distribution}"
        )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
