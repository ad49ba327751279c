"""What a program says into a pipe whose reader may have seen enough."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNREAD = 141
"""128 + SIGPIPE: how a shell reports programs that such a reader ends."""


@contextmanager
def into_pipe() -> Iterator[None]:
    """End the process with 141 and without a word where nobody reads its standard output any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, for what fails at the end of the process is said as a traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD)
