"""A real sshd on a port of the loopback, run by the current user, with keys of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd") or next(
    (p for p in ("/usr/sbin/sshd", "/sbin/sshd") if os.access(p, os.X_OK)), ""
)
PRIVILEGE_FOLDER = Path("/run/sshd")  # a daemon that root starts insists on it


def why_not() -> str:
    """Why no sshd can be run here; empty: it can."""
    if not SSHD or not all(shutil.which(tool) for tool in ("ssh", "ssh-keygen")):
        return "no OpenSSH on this machine (apt install openssh-server)"
    if os.getuid() == 0:
        try:
            PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            return f"{PRIVILEGE_FOLDER} cannot be made: {error.strerror}"
    return ""


class Loopback:
    """The daemon, a client configuration in which it is called ``box``, and a home for its engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home-there"
        self.bin = folder / "bin"
        self.config = folder / "ssh_config"
        self.key = folder / "id"
        self.port = _free_port()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._lay_out()

    def _lay_out(self) -> None:
        self.home.mkdir()
        self.bin.mkdir()
        self.install("tfm-tui")
        for name in ("host_key", "id"):
            _make_key(self.folder / name)
        shutil.copy(self.folder / "id.pub", self.folder / "authorized_keys")
        host_key = (self.folder / "host_key.pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {' '.join(host_key)}\n")
        user = pwd.getpwuid(os.getuid()).pw_name
        path = f"{self.bin}:/usr/local/bin:/usr/bin:/bin"
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv PATH={path} TFM_HOME={self.home} HOME={self.home} OMP_NUM_THREADS=1 SHELL=/bin/sh\n"
        )
        self.config.write_text(
            f"Host box\n  HostName 127.0.0.1\n  Port {self.port}\n  User {user}\n  IdentityFile {self.key}\n"
            f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {self.folder}/known_hosts\n"
            "Host nowhere\n  HostName no-such-machine.invalid\n"
        )

    def install(self, name: str, line: str = "") -> Path:
        """Put a program on the other side's PATH: our own command line, or one shell line."""
        own = f'PYTHONPATH={ROOT}/.typing exec {sys.executable} -m tfm.tui.cli "$@"'
        program = self.bin / name
        program.write_text(f"#!/bin/sh\n{line or own}\n")
        program.chmod(0o755)
        return program

    @property
    def ssh(self) -> str:
        """What TFM_SSH is set to."""
        return f"ssh -F {self.config}"

    def start(self) -> None:
        log = (self.folder / "sshd.log").open("ab")
        command = (SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config"))
        self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._daemon.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.01)
        raise AssertionError("sshd does not listen")

    def stop(self) -> None:
        """The daemon and every connection, as when the machine loses its network."""
        if self._daemon is not None:
            sessions = self.sessions()
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None
            for process in sessions:
                with contextlib.suppress(psutil.NoSuchProcess):  # it went with the daemon
                    process.kill()

    def sessions(self) -> list[psutil.Process]:
        """sshd's own processes for the connections that are open; not what runs in them."""
        assert self._daemon is not None
        found: list[psutil.Process] = []
        for child in psutil.Process(self._daemon.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if child.name().startswith("sshd"):
                    found.append(child)
        return found

    def engines(self) -> list[psutil.Process]:
        assert self._daemon is not None
        children = psutil.Process(self._daemon.pid).children(recursive=True)
        return [child for child in children if child.cmdline()[-1:] == ["engine"] and "-m" in child.cmdline()]

    def cut(self) -> None:
        """Drop every connection; the daemon goes on."""
        for process in self.sessions():
            process.kill()

    def cut_silently(self) -> None:
        """Let every connection fall silent without an end, as when a cable is pulled."""
        for process in self.sessions():
            process.suspend()

    def lock_key(self, passphrase: str) -> None:
        """Put a passphrase on the key, so that somebody must type it."""
        command = ("ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(self.key))
        subprocess.run(command, check=True, capture_output=True)


def _make_key(path: Path) -> None:
    command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path))
    subprocess.run(command, check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def box_or_skip(folder: Path) -> Loopback:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return Loopback(folder)
