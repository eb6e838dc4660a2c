"""A web server on this machine whose answers a test writes byte by byte."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator

from PIL import Image

from gill.retrieval import FetchLimits

LIMITS = FetchLimits(num_bytes=20_000, num_pixels=10_000, seconds=5, num_redirects=2)  # small, to be met
Answer = Callable[[socket.socket, str], None]  # (connection, path asked for) -> sends what it likes


class PictureServer:
    """Answers each request by the function of its path; any other path with the picture.

    Attributes:
        port: of 127.0.0.1. asked: paths in the order they came. headers: of the last request, as sent.
    """

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers, self.asked, self.headers = answers, list[str](), ""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str) -> str:
        """Address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def allows(self, address: str, port: int) -> bool:
        """A policy under which this server alone may be asked."""
        return (address, port) == ("127.0.0.1", self.port)

    def close(self) -> None:
        """Stop listening."""
        self._listening.shutdown(socket.SHUT_RDWR)  # closing alone leaves the waiting thread its last visitor
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the fetcher hangs up when it has seen enough
            self.headers = connection.recv(65536).decode(errors="replace")
            if not self.headers.startswith("GET "):
                return
            path = self.headers.split(" ")[1]
            self.asked.append(path)
            self.answers.get(path, picture())(connection, path)


@contextlib.contextmanager
def serving(**answers: Answer) -> Iterator[PictureServer]:
    """A server whose path /name is answered by the function given under that name."""
    server = PictureServer({f"/{name}": answer for name, answer in answers.items()})
    try:
        yield server
    finally:
        server.close()


def png(width: int = 3, height: int = 2) -> bytes:
    """A small picture's file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def reply(status: str = "200 OK", body: bytes = b"", **headers: str) -> Answer:
    """One whole answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    return lambda connection, _: connection.sendall(head + body)


def picture() -> Answer:
    """The picture, as a server should send it."""
    return reply(body=png(), Content_Type="image/png", Content_Length=str(len(png())))


def redirect(to: str, status: str = "302 Found") -> Answer:
    """Ask elsewhere."""
    return reply(status, Location=to, Content_Length="0")
