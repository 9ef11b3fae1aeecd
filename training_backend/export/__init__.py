"""From a run to a folder that other programs load."""
