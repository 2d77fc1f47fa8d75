"""The trainer as an operating-system process: spawning it detached, and telling whether it still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HEARTBEAT_LIMIT = 180.0  # seconds without a heartbeat after which a trainer on another machine counts as dead
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def spawn_trainer(folder: Path, python: str) -> subprocess.Popen[bytes]:
    """Start the trainer detached, its words going to log.txt, without the secrets of our own environment."""
    secret = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")
    environment = {key: value for key, value in os.environ.items() if not any(word in key.upper() for word in secret)}
    paths = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["PYTHONUNBUFFERED"] = "1"
    command = [python, "-m", "stylegan", "train", "--config", str(folder / "config.json")]
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                start_new_session=True, env=environment)


def status_of(pid: int, state: str, nimg: int, message: str) -> dict[str, Any]:
    """The content of status.json for the process `pid`, alive at this moment."""
    return {"pid": pid, "started": process_start(pid), "host": socket.gethostname(), "state": state, "nimg": nimg,
            "heartbeat": time.time(), "message": message}


def process_start(pid: int) -> int | None:
    """When this pid was started, in clock ticks since boot; None for a dead or unreaped process, or without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(status: Mapping[str, Any]) -> bool:
    """True when the very process that wrote this status still runs, so a pid given to another process is no proof."""
    pid = status.get("pid", 0)
    if status.get("host") != socket.gethostname() or not Path("/proc/self/stat").exists():
        return time.time() - status.get("heartbeat", 0.0) < _HEARTBEAT_LIMIT
    started = process_start(pid)
    return started is not None and started == status.get("started", started)
