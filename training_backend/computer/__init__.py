"""What this computer is and does: cards, memory, PyTorch's build, sleep."""
