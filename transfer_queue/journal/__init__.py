"""An append-only, checksummed journal of opaque records, with snapshots, and compaction that never stops the writer."""

from transfer_queue.journal.compactor import Compactor as Compactor
from transfer_queue.journal.compactor import Outcome as Outcome
from transfer_queue.journal.journal import Journal as Journal
from transfer_queue.journal.policy import CompactionPolicy as CompactionPolicy
from transfer_queue.journal.recovery import Recovered as Recovered
