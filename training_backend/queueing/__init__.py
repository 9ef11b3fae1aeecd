"""Runs that follow one another by themselves: the queue, and sweeps."""
