"""What is generated in the charts: `python -m charts`. The charts themselves lie in folders beside this file."""
