"""How much memory a job takes, and what to do when that is too much."""
