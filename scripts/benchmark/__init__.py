"""How fast minisbert is beside its peers on this machine: `python scripts/benchmark --help`, and README.md beside this file."""
