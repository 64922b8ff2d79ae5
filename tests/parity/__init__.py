"""minisbert against transformers, sentence-transformers and a second opinion of our own: the same values, layer by layer."""
