"""Pictures from the web: what comes, what is refused, and who may be asked.

The servers are threads on this machine; the policy under test decides which of its ports counts as public.
"""

import socket
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from gill.errors import FetchError
from gill.retrieval import FetchLimits, PictureFetcher, is_public
from tests.retrieval.picture_server import LIMITS, Answer, PictureServer, picture, png, redirect, reply, serving

PICTURE = {"Content_Type": "image/png"}


def web(server: PictureServer, **limits: Any) -> PictureFetcher:
    """A fetcher to which one server is the public web."""
    return PictureFetcher([], True, FetchLimits(**{**vars(LIMITS), **limits}), server.allows)


def test_a_picture_is_fetched_from_an_address() -> None:
    with serving() as server:
        image = web(server).fetch(server.url("/some path/ä.png?a=1&b=ü#part"))
    assert (image.size, image.mode) == ((3, 2), "RGB")
    assert server.asked == ["/some%20path/%C3%A4.png?a=1&b=%C3%BC"]
    assert f"Host: 127.0.0.1:{server.port}\r\n" in server.headers
    assert "Accept-Encoding: identity\r\n" in server.headers


def test_pictures_in_chunks_and_without_a_length_are_read_whole() -> None:
    body = png()
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:])) + b"0\r\n\r\n"
    answers = {
        "chunked": reply(body=chunked, Transfer_Encoding="chunked", **PICTURE),
        "unknown": reply(body=body, **PICTURE),
    }
    with serving(**answers) as server:
        for name in answers:
            assert web(server).fetch(server.url(f"/{name}")).size == (3, 2)


def test_the_network_is_off_unless_it_is_allowed(tmp_path: Path) -> None:
    with serving() as server:
        with pytest.raises(FetchError, match="fetching from the network is off"):
            PictureFetcher([tmp_path], policy=server.allows).fetch(server.url("/a.png"))
        assert server.asked == []


def test_redirects_are_followed_and_counted() -> None:
    answers = {
        "one": redirect("/two", "301 Moved Permanently"),
        "two": redirect("three", "307 Temporary Redirect"),
        "three": picture(),
        "long": redirect("/one", "308 Permanent Redirect"),
        "circle": redirect("/circle", "303 See Other"),
    }
    with serving(**answers) as server:
        assert web(server).fetch(server.url("/one")).size == (3, 2)
        assert server.asked == ["/one", "/two", "/three"]
        for name in ("long", "circle"):
            with pytest.raises(FetchError, match="more than 2 redirects"):
                web(server).fetch(server.url(f"/{name}"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://127.0.0.1:{other}/secret", "leads to 127.0.0.1, an address that pictures are not fetched from"),
        ("http://localhost:{other}/secret", "an address that pictures are not fetched from"),
        ("http://[::1]:{other}/", "leads to ::1"),
        ("http://10.0.0.1/", "leads to 10.0.0.1"),
        ("http://169.254.169.254/latest/meta-data/", "leads to 169.254.169.254"),
        ("//192.168.1.1/a.png", "leads to 192.168.1.1"),
        ("http://0x7f000001:{other}/", "leads to 127.0.0.1"),
        ("http://2130706433:{other}/", "leads to 127.0.0.1"),
        ("file:///etc/hostname", "not a plain http"),
        ("ftp://127.0.0.1/a.png", "not a plain http"),
        ("http://user:password@127.0.0.1:{port}/a.png", "not a plain http"),
        ("http://127.0.0.1:99999/", "is no address"),
        ("http://[broken/", "cannot be fetched|is no address"),
        ("http://:80/nowhere", "not a plain http"),
        ("http://" + "a" * 300 + "/", "cannot be fetched"),
    ],
)
def test_redirects_to_anything_but_the_public_web_are_refused(target: str, message: str) -> None:
    with serving() as other, serving() as server:
        server.answers["/start"] = redirect(target.format(other=other.port, port=server.port))
        with pytest.raises(FetchError, match=message) as raised:
            web(server).fetch(server.url("/start"))
        assert str(raised.value).startswith(server.url("/start"))
        assert server.asked == ["/start"] and other.asked == []


def test_a_name_is_resolved_once_and_connected_to_where_it_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers with a public address first and a private one afterwards gains nothing."""
    original, answered = socket.getaddrinfo, []

    def rebinding(host: str, port: int, **rest: Any) -> list[Any]:
        answered.append(host)
        return original("127.0.0.1" if len(answered) == 1 else "10.0.0.1", port, **rest)

    with serving() as server:
        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        assert web(server).fetch(f"http://rebinding.example:{server.port}/a.png").size == (3, 2)
        assert answered == ["rebinding.example"]
        assert f"Host: rebinding.example:{server.port}\r\n" in server.headers
        with pytest.raises(FetchError, match=r"rebinding\.example leads to 10\.0\.0\.1"):
            web(server).fetch(f"http://rebinding.example:{server.port}/a.png")
        assert len(server.asked) == 1


def test_a_name_with_one_private_address_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, server.port)) for host in ("127.0.0.1", "10.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(FetchError, match=r"leads to 10\.0\.0\.1"):
            web(server).fetch(f"http://two.example:{server.port}/a.png")
        assert server.asked == []


def test_a_second_address_is_tried_when_the_first_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        ports = (dead.getsockname()[1], server.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert web(server).fetch(f"http://two.example:{server.port}/a.png").size == (3, 2)


def test_names_that_nobody_knows_or_that_take_too_long_are_dead_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    fetcher = PictureFetcher([], True, FetchLimits(seconds=0.2))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match="Name or service not known"):
        fetcher.fetch("http://unknown.example/a.png")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20))
    with pytest.raises(FetchError, match=r"no answer for the name slow\.example within 0\.2 s"):
        fetcher.fetch("http://slow.example/a.png")


def drip(head: bytes, part: bytes) -> Answer:
    """Send `part` again and again, a little at a time, for ever."""

    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)
            time.sleep(0.02)

    return answer


def flood(head: bytes, part: bytes) -> Answer:
    """Send `part` again and again, as fast as it is taken."""

    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(drip(OK + b"\r\n", b"x"), id="body"),
        pytest.param(drip(b"", b"H"), id="status line"),
        pytest.param(drip(OK, b"A: b\r\n"), id="headers"),
        pytest.param(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers"),
        pytest.param(drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"), id="length of a chunk"),
        pytest.param(lambda *_: time.sleep(3), id="silence"),
    ],
)
def test_answers_that_never_end_are_given_up_in_time(answer: Answer) -> None:
    """Every byte comes well within any timeout of a single read; it is the whole that has a limit."""
    with serving(slow=answer) as server:
        start = time.monotonic()
        with pytest.raises(FetchError, match=r"longer than 0\.3 s|timed out"):
            web(server, seconds=0.3).fetch(server.url("/slow"))
        assert time.monotonic() - start < 30  # a busy machine; without the limit it would never end


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (flood(OK + b"\r\n", bytes(4096)), "more than 20000 bytes"),
        (flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + bytes(4096) + b"\r\n"), "more than 20000"),
        (reply(Content_Length="20001", **PICTURE), "20001 bytes, at most 20000"),
        (flood(OK, b"A: " + b"b" * 9000 + b"\r\n"), "cannot be fetched"),
        (flood(OK + b"A: ", b"b" * 9000), "cannot be fetched"),
        (reply(body=png(200, 200), **PICTURE), "200 x 200 pixels, at most 10000"),
        (reply(body=png(), Content_Type="text/html"), "sent text/html, wanted image"),
        (reply(body=png(), Content_Type="application/octet-stream"), "wanted image"),
        (reply(body=png()), "wanted image"),
        (reply(body=b"<html>", **PICTURE), "no readable"),
        (reply(body=zlib.compress(bytes(10**7)), Content_Encoding="gzip", **PICTURE), "packed its answer as gzip"),
        (reply("404 Not Found"), "answered 404 Not Found"),
        (reply("302 Found"), "answered 302"),
        (reply("500 Internal Server Error"), "answered 500"),
        (reply("204 No Content", **PICTURE), "answered 204"),
        (reply(body=png()[:40], Content_Length=str(len(png())), **PICTURE), "no readable"),
        (reply(body=b"zz\r\n", Transfer_Encoding="chunked", **PICTURE), "cannot be fetched"),
        (lambda connection, _: connection.sendall(b"\xff\xff nonsense\r\n\r\n"), "cannot be fetched"),
        (lambda *_: None, "cannot be fetched"),
    ],
)
def test_answers_that_are_no_picture_are_refused(answer: Answer, message: str) -> None:
    with serving(x=answer) as server, pytest.raises(FetchError, match=message) as raised:
        web(server).fetch(server.url("/x"))
    assert str(raised.value).startswith(server.url("/x"))


def test_a_closed_port_is_a_dead_link() -> None:
    with serving() as server:
        pass
    with pytest.raises(FetchError, match="cannot be fetched"):
        web(server).fetch(server.url("/a.png"))


def test_line_breaks_in_an_address_make_no_second_request() -> None:
    with serving() as server:
        web(server).fetch(server.url("/a b HTTP/1.1\r\nX-Evil: 1\r\n\r\n.png"))
        assert "X-Evil" not in server.headers.replace(server.headers.splitlines()[0], "")


def test_secure_addresses_ask_for_a_certificate_of_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is secured before anything is sent, and a plain answer to it is no answer."""
    with serving() as server:
        monkeypatch.setattr(PictureServer, "allows", lambda *_: True)
        with pytest.raises(FetchError, match=r"cannot be fetched \(.*SSL"):
            web(server).fetch(f"https://127.0.0.1:{server.port}/a.png")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"],
)
def test_public_addresses_may_be_asked(address: str) -> None:
    assert is_public(address, 80)


NOT_PUBLIC = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 192.168.0.1 192.0.2.1 198.18.0.1
224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fec0::1 ff02::1 2001:db8::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:7f00:1::
localhost 127.1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_no_other_address_may(address: str) -> None:
    assert not is_public(address, 80)
