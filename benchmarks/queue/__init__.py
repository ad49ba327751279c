"""The queue beside its namesake on PyPI, TransferQueue 0.1.11: same payloads, same process counts, every byte checked.

`python -m benchmarks.queue` (or `make bench-queue`) runs all figures and writes `benchmarks/results/queue.md`. Each
system is driven by processes of its own (`driver.py`) that run the same work (`work/`) through an adapter (`ours.py`,
`peer.py`) and answer in JSON; `figures/` says what is measured and what has to be reached.
"""
