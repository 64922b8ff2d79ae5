"""From the name of a model to its parts, and back to files."""
