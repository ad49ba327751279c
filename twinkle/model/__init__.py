"""Language models as a trainer sees them."""
