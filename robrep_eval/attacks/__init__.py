"""Attacks: each proposes perturbed images; `zoo.evidence` decides what counts."""
