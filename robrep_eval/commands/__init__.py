"""The command line `robrep-eval`."""
