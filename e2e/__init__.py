"""A real Kubernetes for the tests: its programs, built from Go modules, and a cluster of one node."""
