"""Speed, memory and method comparisons; each runs by one command."""
