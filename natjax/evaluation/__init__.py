"""Scores of translations, whether they differ by more than chance, and the result files that record them."""
