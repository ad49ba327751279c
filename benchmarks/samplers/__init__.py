"""The figures of samplers and of the device groups that they run on: `make bench-samplers`."""
