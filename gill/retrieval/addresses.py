"""Which machines may be asked for pictures, and connections to exactly the address that was allowed.

A name is resolved once, all its addresses are judged, and the connection goes to a judged address: a name server that
answers differently the second time gains nothing.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from gill.errors import FetchError

_Resolved = tuple[Any, Any, int, str, Any]  # as `socket.getaddrinfo` has them
AddressPolicy = Callable[[str, int], bool]  # (IP address, port) -> whether it may be connected to

# 6to4 and Teredo carry an IPv4 address that a gateway would connect to; 64:ff9b::/96, which does too, is reserved.
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))


def is_public(address: str, port: int) -> bool:
    """Whether an address belongs to the public internet; any port.

    Loopback, private, link-local, shared, multicast and reserved addresses do not, nor any that stands for another
    inside (mapped, translated and tunnelled IPv4).
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped), port)
        if found.is_site_local or any(found in network for network in _TUNNELS):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


class Deadline:
    """One moment by which everything must be done, however many small steps it takes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, above 0.

        Raises:
            TimeoutError: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"took longer than {self.seconds:g} s")
        return left


class CheckedConnection(http.client.HTTPConnection):
    """A connection to an address that `policy` allows, all of whose reads share one deadline.

    Raises:
        FetchError: on connecting, when the name leads to an address that is not allowed.
        OSError: it leads nowhere, or nobody answers in time.
    """

    def __init__(self, host: str, port: int, is_secure: bool, policy: AddressPolicy, deadline: Deadline) -> None:
        self.default_port = 443 if is_secure else 80
        super().__init__(host, port)
        self._is_secure, self._policy, self._deadline = is_secure, policy, deadline

    def connect(self) -> None:
        """Resolve, judge and connect; with TLS, the certificate must be of the name that was asked for."""
        found = _resolve(self.host, self.port, self._deadline)
        refused = [str(entry[4][0]) for entry in found if not self._policy(str(entry[4][0]), self.port)]
        if refused:
            raise FetchError(f"{self.host} leads to {refused[0]}, an address that pictures are not fetched from")
        last: OSError | None = None
        for entry in found:
            try:
                self.sock: Any = _TimedSocket(self._connected(entry), self._deadline)
                return
            except OSError as error:
                last = error
        raise last or OSError(f"{self.host} has no address")

    def _connected(self, entry: _Resolved) -> socket.socket:
        kind, _, protocol, _, address = entry
        connected = socket.socket(kind, socket.SOCK_STREAM, protocol)
        try:
            connected.settimeout(self._deadline.left())
            connected.connect(address)
            if self._is_secure:
                return ssl.create_default_context().wrap_socket(connected, server_hostname=self.host)
        except OSError:
            connected.close()
            raise
        return connected


class _TimedSocket:
    """What `http.client` needs of a socket; every call gets the time that is left of the whole."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._connected, self._deadline = connected, deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(self._deadline.left())
        self._connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connected, self._deadline))

    def close(self) -> None:
        self._connected.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._connected, self._deadline = connected, deadline
        self._raw = connected.makefile("rb", buffering=0)  # keeps the socket open while it is read from

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connected.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _resolve(host: str, port: int, deadline: Deadline) -> list[_Resolved]:
    """As `socket.getaddrinfo`, which itself knows no time limit: a thread that is still waiting is left behind."""
    answers: list[list[_Resolved] | OSError | UnicodeError] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(deadline.left())
    if not answers:
        raise TimeoutError(f"no answer for the name {host} within {deadline.seconds:g} s")
    if isinstance(answers[0], UnicodeError):
        raise OSError(f"{host[:80]!r} is no host name") from answers[0]
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]
