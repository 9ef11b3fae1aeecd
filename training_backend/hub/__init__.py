"""The Hugging Face Hub and its cache: looking, downloading, the token."""
