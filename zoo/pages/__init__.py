"""What pages share: their shell, templates and axes."""
