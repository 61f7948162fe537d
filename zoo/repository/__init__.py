"""Results as a repository that others add to: laid out, checked, exported."""
