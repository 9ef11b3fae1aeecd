"""Headless training: everything that Lorasmith does without a window."""

__version__ = "0.1.0"
