"""Turning models into translations: compiled functions with static shapes, and what feeds them."""
