"""The public operations, a file per family: check, view, allocate, call the engine."""
