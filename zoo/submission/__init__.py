"""RobustBench: the bundle of an entry, and its own checks."""
