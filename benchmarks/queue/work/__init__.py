"""What the driven processes do; each function takes the system first and gives what JSON can carry."""
