"""Python and everything it imports, lent to containers by the host: virtual environment, interpreter, repository.

containerd mounts them read-only in every container, at the paths that they have outside (a virtual environment holds
its own path). So an image of plain Debian behaves like a full one, no manifest mentions it, and what runs is this
checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
OF_THE_IMAGE = Path("/usr")  # an interpreter there is the image's own, too
OF_PODS = Path("/tmp")  # pods of the operator mount a folder of their own there


def places() -> list[Path]:
    """The folders of the host that containers see; none lies in another."""
    wanted = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)} - {OF_THE_IMAGE}
    return sorted(place for place in wanted if not any(other in place.parents for other in wanted))


def hidden() -> list[Path]:
    """Of those, the folders that no pod would see."""
    return [place for place in places() if OF_PODS in (place, *place.parents)]


def variables() -> list[str]:
    """The environment of an image that uses them, as NAME=VALUE."""
    paths = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "operator")))
    return [
        f"PATH={sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"PYTHONPATH={paths}",
        "PYTHONUNBUFFERED=1",
        "RAY_USAGE_STATS_ENABLED=0",
    ]


def mounts() -> list[dict[str, object]]:
    """The same folders as mounts of an OCI runtime."""
    options = ["rbind", "ro"]
    return [{"destination": str(place), "type": "bind", "source": str(place), "options": options} for place in places()]
