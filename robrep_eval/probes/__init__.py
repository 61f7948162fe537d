"""Downstream probes: SLF, ALF, AFF, few labels."""
