"""Which network interface leads to another machine, so that nobody has to name it (no torch)."""

from __future__ import annotations

import socket
import struct

try:
    import fcntl
except ImportError:  # not a POSIX system: whoever needs an interface names it
    fcntl = None

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def interface_towards(host: str) -> str:
    """The name of the IPv4 interface through which this machine reaches `host`, empty when that cannot be told."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: it only chooses a way
            mine = probe.getsockname()[0]
            return next((name for _, name in socket.if_nameindex() if _address_of(probe, name) == mine), "")
    except (OSError, UnicodeError, AttributeError):
        return ""


def _address_of(probe: socket.socket, interface: str) -> str:
    """The IPv4 address of an interface, empty when it has none."""
    if fcntl is None:
        return ""
    try:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except OSError:
        return ""
    return socket.inet_ntoa(answer[20:24])
