"""Reading, features and probe at several sizes: `python -m benchmarks.scale`."""
