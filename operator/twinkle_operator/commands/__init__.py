"""The commands of `twinkle` for stacks: validate and render look at files alone, status and fetch at a cluster."""
