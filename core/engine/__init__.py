"""The engine process: protocol, sessions, server. Importing this package loads no torch."""
