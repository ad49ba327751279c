"""The figures of the samplers: `make bench-samplers`."""
