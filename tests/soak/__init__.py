"""The queue under SIGKILL at every point that matters, for minutes, with a ledger of the truth on the side."""
