"""Third floor of robrep: makes encoders."""

import robrep_eval  # noqa: F401 - says so if another package hides one of robrep's
