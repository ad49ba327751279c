"""Scripts that measure what we claim, check every result, and write it to ``benchmarks/results``."""
