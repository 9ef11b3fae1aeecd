"""The parts of the Runs page and of the export wizard."""
