"""How many connections this process may have: each one is a file descriptor, and others need some too."""

from __future__ import annotations

import errno
import os
import resource

MOST = 65536
RESERVE = 64
"""Descriptors that connections leave to the journal, to arenas and to whatever samplers import."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept that say: not now."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, 65536 at most; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


class Descriptors:
    """Counts the connections of all listeners of a server against what the file limit leaves for them."""

    def __init__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.reserve = min(RESERVE, self.limit // 4)
        self.used = 0
        self.measure()

    def measure(self) -> None:
        """Count again what is open beside the connections; for who has just opened a lot that stays."""
        self.most = max(1, self.limit - (_open_now() - self.used) - self.reserve)

    def full(self) -> bool:
        return self.used >= self.most

    def refusal(self) -> str:
        """What a newcomer is told."""
        return (
            f"the controller has {self.used} connections and can take no more: its limit of open files is {self.limit} "
            "(ulimit -n); start it with a higher limit, or close clients that are not needed"
        )


def _open_now() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return 32
