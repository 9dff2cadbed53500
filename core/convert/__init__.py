"""Checkpoints of other programs, in and out: one table per family."""
