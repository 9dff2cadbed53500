"""Another machine's engine, through the user's own ssh: how it is called, and what its failures mean.

ssh brings the keys, the host aliases and the jump hosts that the user has set up; we open no port and
leave nothing running over there. The engine's messages go through the connection's own stdin and stdout.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

ALIVE_EVERY = 5  # seconds between ssh's questions whether the other side is there
ALIVE_MISSES = 3  # unanswered ones after which the link is dead
CONNECT_WITHIN = 15  # seconds
KEPT_FOR = 600  # seconds that a sign-in outlives the last connection that used it

Kind = Literal["lost", "person", "set-up"]
"""Why there is no engine: the link is down and may come back; a person must answer something (a password,
a passphrase, a new host key); or something must be put right before another try can succeed."""

_TERSE = (  # what ssh lets a connection do that an engine has no use for
    "-T", "-a", "-x", "-oClearAllForwardings=yes", "-oRemoteCommand=none", "-oPermitLocalCommand=no",
    f"-oConnectTimeout={CONNECT_WITHIN}", f"-oServerAliveInterval={ALIVE_EVERY}",
    f"-oServerAliveCountMax={ALIVE_MISSES}",
)  # fmt: skip
# Where the program may be: on the PATH that ssh gives, in the usual places of a user's own programs, or
# where only a login shell looks. No ' and no ! and no line break in it, so that every shell passes it on.
_FIND = (
    'for t in tfm-tui "$HOME/.local/bin/tfm-tui" "$HOME/tfm-tui/.venv/bin/tfm-tui" '
    '"$HOME/.venv/bin/tfm-tui" "$HOME/venv/bin/tfm-tui"; do '
    'if command -v "$t" >/dev/null 2>&1; then exec "$t" engine; fi; done; '
    't=$("${SHELL:-sh}" -lc "command -v tfm-tui" </dev/null 2>/dev/null | tail -n 1); '
    'if [ -x "$t" ]; then exec "$t" engine; fi; '
    "echo tfm-tui: command not found >&2; exit 127"
)
_SAFE = "export PYTHONSAFEPATH=1 PYTHONUTF8=1; "


class Farewell(NamedTuple):
    """Why a connection ended: one sentence, and what can be done about it."""

    sentence: str
    kind: Kind


class Box:
    """A machine that ssh knows under a name."""

    def __init__(self, host: str, command: str = "", ssh: str = "ssh") -> None:
        """``command`` is what tfm-tui is called over there, where it is not found by itself; ``ssh`` is
        what ssh is called here, with options of the user's own.

        Raises:
            ValueError: this is no name of a machine; one sentence.
        """
        if not host or host.startswith("-") or any(c.isspace() or not c.isprintable() for c in host):
            raise ValueError(f"--host takes USER@BOX, a name that ssh knows, not {host!r}")
        try:
            self._ssh = tuple(shlex.split(ssh))
        except ValueError:
            raise ValueError(f"TFM_SSH is {ssh!r}, which no shell could read") from None
        if not self._ssh or shutil.which(self._ssh[0]) is None:
            raise ValueError(
                f"--host needs ssh, and there is no {(self._ssh or ('ssh',))[0]} on this machine"
            )
        self.host = host
        self.name = re.sub(r"^ssh://", "", host).rsplit("@", 1)[-1]
        self._command = command
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    # ------------------------------------------------------------------ calling
    def engine(self) -> tuple[str, ...]:
        """The command that is an engine to us. It never asks: the terminal is the app's."""
        find = f"{self._command} engine" if self._command else _FIND
        script = shlex.quote(_SAFE + find) if self._command else f"'{_SAFE}{find}'"
        return (*self._ssh, *_TERSE, "-oBatchMode=yes", *self._shared(), "--", self.host, f"sh -c {script}")

    def _shared(self) -> tuple[str, ...]:
        """Use the connection that was signed in to, while it lasts; else one of our own."""
        path = (f"-oControlPath={self._socket}",) if self._folder is not None else ()
        return ("-oControlMaster=no", *path)  # a master of ours would outlive us and hold our pipes

    @property
    def _socket(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "ssh"

    # ------------------------------------------------------------------ signing in
    def sign_in(self) -> bool:
        """Let ssh ask on this terminal whatever it must; connections after this one ask no more.

        It is a connection in the background that others go through, behind a socket in a folder that
        only its owner can enter. Blocks until the person has answered or given up.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tfm-ssh-", ignore_cleanup_errors=True)
        command = (
            *self._ssh, *_TERSE, "-f", "-N", "-oControlMaster=yes", f"-oControlPath={self._socket}",
            f"-oControlPersist={KEPT_FOR}", "--", self.host,
        )  # fmt: skip
        print(f"Signing in to {self.name}; tfm-tui goes on afterwards. Ctrl+C goes back.", flush=True)
        before = signal.signal(signal.SIGINT, lambda number, frame: None)  # ^C is for ssh; it gets its own
        try:
            return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
        finally:
            signal.signal(signal.SIGINT, before)

    def sign_out(self) -> None:
        """End the connection that was signed in to."""
        if self._folder is None:
            return
        command = (*self._ssh, "-oBatchMode=yes", f"-oControlPath={self._socket}", "-Oexit", "--", self.host)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2, check=False)
        self._folder.cleanup()
        self._folder = None

    # ------------------------------------------------------------------ what ended it
    def farewell(self, status: int | None, log: Collection[str], *, greeted: bool) -> Farewell:
        """What the end of the connection means. ``log`` is the end of what ssh and the engine wrote;
        ``greeted``: an engine had answered by then."""
        said = "\n".join(log)
        for pattern, kind, sentence in _KNOWN:
            found = re.search(pattern, said)
            if found and status == 255:
                return Farewell(self._fill(sentence, found), kind)
        words = next((line.strip() for line in reversed(list(log)) if line.strip()), "")
        last = f" Its last words: {words[:200]}" if words else ""
        if status == 127 and not greeted:
            return Farewell(self._not_found(), "set-up")
        if greeted:
            if status == 255 or (status is not None and status < 0):
                return Farewell(
                    f"The connection to {self.name} was lost.{last if status == 255 else ''}", "lost"
                )
            return Farewell(f"The engine on {self.name} stopped with status {status}.{last}", "lost")
        if status == 255:
            return Farewell(f"ssh cannot connect to {self.name}.{last}", "lost")
        if status is not None and status < 0:
            return Farewell(f"ssh was stopped before it had connected to {self.name}.", "lost")
        return Farewell(f"tfm-tui on {self.name} ended with status {status}.{last}", "set-up")

    def _fill(self, sentence: str, found: re.Match[str]) -> str:
        return sentence.format(*found.groups(), box=self.name, host=self.host)

    def _not_found(self) -> str:
        if self._command:
            return f"{self.name} has no `{self._command}`: look at --remote-command."
        return (
            f"There is no tfm-tui on {self.name} that ssh could find: install it there, or say where it is "
            "with --remote-command, such as --remote-command '~/tfm-tui/.venv/bin/tfm-tui'."
        )


# ssh's own words, which it says in English everywhere; with them its exit status is 255.
_KNOWN: tuple[tuple[str, Kind, str], ...] = (
    (r"Could not resolve hostname \S+: (.+)", "set-up",
     "ssh knows no machine {box} ({0}): check the name, or describe it in ~/.ssh/config."),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "set-up",
     "{box} shows another host key than before, so nothing was sent to it: `ssh {host}` says what to do."),
    (r"Host key verification failed", "person",
     "ssh has not met {box} yet, and someone must look at its host key: {{app.sign_in}} signs in."),
    (r"Too many authentication failures|Permission denied \(([^)]*)\)", "person",
     "{box} lets nobody in without a key or an answer: {{app.sign_in}} signs in, or load your key with "
     "ssh-add."),
    (r"Bad configuration option|Bad owner or permissions|terminating, \d+ bad configuration", "set-up",
     "ssh's own settings are in the way: `ssh {host}` says where."),
    (r"Connection refused", "lost", "{box} takes no ssh connections: is sshd running there, on this port?"),
    (r"(Connection timed out|Operation timed out|No route to host|Network is unreachable)", "lost",
     "{box} cannot be reached ({0})."),
    (r"Timeout, server \S+ not responding", "lost",
     "The connection to {box} was lost: nothing came from there for 15 seconds."),
    (r"(Connection to \S+ closed by remote host|client_loop: send disconnect|Connection reset|Broken pipe"
     r"|mux_client_\S+: .*)", "lost", "The connection to {box} was lost."),
)  # fmt: skip


def box_of(host: str, command: str | None) -> Box:
    """The box that options and environment describe: ``TFM_SSH`` is the ssh to call.

    Raises:
        ValueError: the name or the settings are of no use; one sentence.
    """
    return Box(host, command or os.environ.get("TFM_REMOTE_COMMAND", ""), os.environ.get("TFM_SSH", "ssh"))
