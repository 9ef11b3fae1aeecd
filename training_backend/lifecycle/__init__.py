"""From a run's start to its end, whatever comes between: its process, journal, checkpoints."""
