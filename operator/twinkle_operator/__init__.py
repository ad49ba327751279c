"""The operator of TrainingStack resources: plans what Kubernetes should hold, and makes it so."""
