"""Flax Linen layers: thin modules around pure functions. Nothing here knows a loss, a mesh or a file.

Every layer that needs randomness takes a `Noise` (see `dropout`), or None when nothing is to be dropped.
"""
