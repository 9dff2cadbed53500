"""The checkpoints that ship with the package: data only."""
