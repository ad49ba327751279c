"""Where values lie. `memory` keeps them in the controller's process; they travel inside the messages."""
