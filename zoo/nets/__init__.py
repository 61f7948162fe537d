"""Backbones: each maps normalised images to a plain (N, d) tensor of features."""
