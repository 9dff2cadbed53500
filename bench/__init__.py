"""Measurements of this machine, printed as plain tables. Nothing is asserted here."""
