"""Many texts on all cores."""
