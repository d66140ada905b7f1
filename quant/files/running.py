"""Tell whether the process that began a file still runs, on this machine or another.

A folder may be shared: by machines over a network, and by containers that have the same host name.
So what is known of a process goes into the name of the file it writes, and only a file whose writer
is known to be dead may be removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

# Start times of macOS and Windows are computed from the clock, which may be set meanwhile.
_START_TOLERANCE = 0 if sys.platform == "linux" else 2
_LINUX_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True)
class Writer:
    """A process that writes a file.

    Attributes:
        machine: digest of the host's name and its id.
        boot: digest of when the machine started.
        space: digest of the namespace that process ids belong to; containers have their own.
        pid: its process id.
        start: when it started, in ticks since the boot (Linux) or seconds (elsewhere). It tells the
            process from a later one with the same id.
    """

    machine: str
    boot: str
    space: str
    pid: int
    start: int

    _TEXT = re.compile(r"([0-9a-f]{8})([0-9a-f]{8})([0-9a-f]{4})-([0-9a-f]{1,12})-([0-9a-f]{1,16})")

    def __str__(self) -> str:
        return f"{self.machine}{self.boot}{self.space}-{self.pid:x}-{self.start:x}"

    @classmethod
    def parse(cls, text: str) -> Writer | None:
        """Read what ``str`` returns; None if it is something else."""
        found = cls._TEXT.fullmatch(text)
        if found is None:
            return None
        machine, boot, space, pid, start = found.groups()
        return cls(machine, boot, space, int(pid, 16), int(start, 16))

    def is_dead(self, *, last_write: float, locked: bool | None) -> bool:
        """Tell whether this process is known to have ended. False where nobody can know.

        Args:
            last_write: when its file was last written, in seconds since the epoch.
            locked: whether some process holds the lock of its file; None if locks do not work.
        """
        here = this_process()
        if locked or self.machine != here.machine:
            return False
        if self.boot != here.boot:
            return last_write < psutil.boot_time()
        if self.space != here.space:
            return locked is False  # its process ids mean nothing here, but the lock does
        start = _start_of(self.pid)
        return start is None or abs(start - self.start) > _START_TOLERANCE


def this_process() -> Writer:
    """Return this process as the writer of a file."""
    pid = os.getpid()
    return Writer(_digest(_machine(), 8), _digest(_boot(), 8), _digest(_space(), 4), pid,
                  _start_of(pid) or 0)  # fmt: skip


def _start_of(pid: int) -> int | None:
    """Return when a process started; None if it does not run."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name of the program, in parentheses, may hold any character.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return int(process.create_time())
    return None


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return the host's name and its id. Clones of a machine may share one of the two."""
    return f"{platform.node()}\n{_machine_id()}"


def _machine_id() -> str:
    if sys.platform == "win32":
        import winreg

        with (
            contextlib.suppress(OSError),
            winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key,
        ):
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    for path in _LINUX_MACHINE_IDS:
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="utf-8").strip()
    node = uuid.getnode()
    return "" if node >> 40 & 1 else f"{node:x}"  # with this bit it is a random number


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return str(round(psutil.boot_time() / 60))  # it differs by a second or two between calls


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _digest(text: str, length: int) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape")).hexdigest()[:length]
