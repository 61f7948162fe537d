"""Measurements beside the attacks: bound, certificates, corruptions, health."""
