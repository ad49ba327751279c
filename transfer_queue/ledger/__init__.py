"""The pure core of the queue: which rows exist, what they have, who holds them, and why a wait is not served.

A request enters in `Ledger`; it takes the time from the clock that it is given and does no I/O.
"""

from transfer_queue.ledger.ledger import Freed, Ledger
from transfer_queue.ledger.request import DPPlace, Taken, Want
from transfer_queue.ledger.rollback import Rolled
from transfer_queue.ledger.shape import QueueShape
from transfer_queue.ledger.state import LedgerState

__all__ = ["DPPlace", "Freed", "Ledger", "LedgerState", "QueueShape", "Rolled", "Taken", "Want"]
