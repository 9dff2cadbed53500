"""Training: data, objectives, loop, evaluation, runs. No UI."""
