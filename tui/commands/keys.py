"""``keys``: every key of the app, as ``$TFM_HOME/keys.toml`` changes them."""

from __future__ import annotations

import click

from tfm.tui.commands.output import emit, json_option, note, say, table


@click.command()
@click.option("--template", is_flag=True, help="Print a keys.toml to begin with; it changes nothing yet.")
@json_option
def keys(template: bool, as_json: bool) -> int:
    """Show the keys of the app, as keys.toml changes them.

    The file lies in $TFM_HOME; `tfm-tui keys --template` prints one to begin with. What is wrong in it
    is told in one sentence each on stderr, and makes the exit status 1; the app starts all the same.
    """
    from tfm.tui import keymap, keys_file

    if template:
        say(keys_file.template().rstrip())
        return 0
    path = keys_file.keys_path()
    now, problems = keys_file.read_keys(path)
    rows: list[tuple[str, str, str, str]] = []
    for title, bindings in keys_file.groups():
        for binding in bindings:
            names = keymap.key_names(now.of(binding))
            if as_json:
                own = keymap.key_names(binding)
                emit(
                    {"id": binding.id, "keys": names.split(), "default": own.split(), "where": title,
                     "does": binding.tooltip}
                )  # fmt: skip
            changed = "*" if binding.id in now.changed else ""
            rows.append((str(binding.id), names + changed, title, binding.tooltip))
    if not as_json:
        say(table(rows, ("BINDING", "KEYS", "WHERE", "WHAT IT DOES")))
        note(f"* changed by {path}" if now.changed else f"to change some: tfm-tui keys --template > {path}")
    for sentence in problems:
        note(sentence)
    return 1 if problems else 0
