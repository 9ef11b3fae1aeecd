"""One step of a model on tensors without content, and what it allocates, for `trace_model`."""
