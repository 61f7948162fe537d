"""Planted defences and honest models: what the health checks say of each."""
