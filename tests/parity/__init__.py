"""minisbert against transformers, sentence-transformers and a second opinion of our own: the same numbers, layer by layer."""
