"""The prediction log: every answer given, and what then happened."""
