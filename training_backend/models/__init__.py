"""Base models and adapters: what their folders hold, and how they are loaded."""
