"""Second floor of robrep: measures encoders."""
