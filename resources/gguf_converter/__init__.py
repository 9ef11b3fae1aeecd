"""llama.cpp's own converter, unchanged, as its package on PyPI has it; see README.md."""
