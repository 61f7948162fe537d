"""Published entries attacked again, and what was found."""
