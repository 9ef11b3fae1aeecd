"""From a file to tokens: reader (rows), mapping (messages), formatting (tokens, loss mask)."""
