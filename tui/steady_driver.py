"""SteadyDriver: Textual's terminal driver, for a process that is stopped and continued in every way, and
whose errors may go elsewhere.

Textual prepares for ^Z alone: on any other SIGCONT (after ``kill -STOP``, or from a service manager that
sends one along with SIGTERM) it sets the terminal up a second time, takes its own settings for those that
were found, and reads the keys twice.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from textual.drivers.linux_driver import LinuxDriver


class SteadyDriver(LinuxDriver):
    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # Textual draws on stderr, and so into the file of `tfm-tui 2>log`, and in the encoding of the locale.
        stdout = 1 if sys.__stdout__ is None else sys.__stdout__.fileno()
        self._file = os.fdopen(stdout, "w", encoding="utf-8", errors="replace", closefd=False)

    def _sigcont_application(self, *_: Any) -> None:
        if not self._auto_restart:  # another program has the terminal, and gives it back itself
            return
        if not self._must_signal_resume:  # stopped without a word: let go first of what was set up
            found = self.attrs_before
            self.disable_input()
            self.close()
            self._must_signal_resume = True
            self.start_application_mode()  # type: ignore[no-untyped-call]
            self.attrs_before = found
        else:
            self.resume_application_mode()
