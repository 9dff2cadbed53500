"""The terminal: commands, app, client of the engine. Never imports torch."""
