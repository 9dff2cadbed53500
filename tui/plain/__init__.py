"""The app as a linear dialogue, for screen readers, dumb terminals and pipes; same engine, same records."""
