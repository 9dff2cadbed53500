"""One module a command of ``tfm-tui``, imported only when that command is invoked."""
