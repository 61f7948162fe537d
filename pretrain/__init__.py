"""Third floor of robrep: makes encoders."""
