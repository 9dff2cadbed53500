"""Sampling: settings, stages, chain, keyed noise."""
