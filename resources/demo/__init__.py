"""The demo dataset that ships with Lorasmith."""
