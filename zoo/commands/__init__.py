"""The command line: what every command shares, and `robrep-zoo`."""
