"""The mathematics of reinforcement learning: pure functions on tensors, and rewards."""
