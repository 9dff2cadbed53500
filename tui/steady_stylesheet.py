"""A stylesheet that is parsed once for each set of colours.

Textual parses all of it anew whenever a theme is set, also the theme that is set already, and does so
twice before the first paint: a third of the time between import and paint.
"""

from __future__ import annotations

from textual.css.stylesheet import Stylesheet


class SteadyStylesheet(Stylesheet):
    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            super().set_variables(variables)  # and forgets what was parsed with the others

    def reparse(self) -> None:
        """Only what was not parsed with these variables before. The rules stay as they are if it fails."""
        self.parse()
