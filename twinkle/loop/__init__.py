"""The loop of training: rollout, reward and train, each a task of the queue."""
