"""A training as a script of its own: plain TRL and PEFT, pinned packages, tokenised rows."""
