"""The recipe file: its schema, how it is read, how two differ."""
