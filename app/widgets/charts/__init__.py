"""Charts, and what belongs to them."""
