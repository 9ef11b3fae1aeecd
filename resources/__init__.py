"""Files that ship with Lorasmith."""
