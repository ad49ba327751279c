"""What a person asks of a cluster, with rights of their own: how a stack is, and its run folder."""
