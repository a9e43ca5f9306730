"""Sequence-level knowledge distillation: a teacher's translations of the training sources, as a student's targets."""
