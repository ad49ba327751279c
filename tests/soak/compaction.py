"""A compaction that ends itself at points of its own: `python -m tests.soak.compaction`, with the arguments of it."""

import os
import sys

from tests.soak.controller import before, behind
from transfer_queue import recovery
from transfer_queue.journal import compact

POINTS = ("compaction_begins", "compaction_writes", "before_rename", "behind_rename", "in_removal")

if __name__ == "__main__":
    before(recovery, "replayed", "compaction_begins")
    before(compact.snapshots, "_fill", "compaction_writes")
    before(os, "rename", "before_rename")
    behind(os, "rename", "behind_rename")
    behind(os, "unlink", "in_removal")
    sys.exit(compact.main(sys.argv[1:]))
