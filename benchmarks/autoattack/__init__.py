"""The attack engine against its peers: `python -m benchmarks.autoattack`."""
