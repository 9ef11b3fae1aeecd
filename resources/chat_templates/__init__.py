"""Standard chat templates, for models that come without one of their own."""
