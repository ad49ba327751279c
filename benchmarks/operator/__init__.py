"""The operator against a real API server on this machine: many stacks, few bytes, no needless writes."""
