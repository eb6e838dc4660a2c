"""Open the pictures an index names: files below given folders, and addresses of the public web where allowed."""

from __future__ import annotations

import http.client
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from PIL import Image

from gill.errors import FetchError
from gill.retrieval.addresses import AddressPolicy, CheckedConnection, Deadline, is_public
from gill.retrieval.pictures import FetchLimits, decode

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters and more: C: is a drive
_REDIRECTS = (301, 302, 303, 307, 308)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "gill-picture-fetcher"}
_CHUNK_BYTES = 65536
_SAFE_CHARACTERS = "/%:@!$&'()*+,;=~-._?[]"  # of an address, kept as they are


class PictureFetcher:
    """Opens pictures by the sources of an index. A `PictureSource`.

    A source is a path relative to one of `roots`, or inside one; a path may lead into a `.zip` file, as in
    `pictures.zip/12.png`. An http or https address is fetched only if the network is allowed, only from public
    machines, and every redirect is judged like a new address. Proxies of the environment are not used.

    Args:
        roots: folders below which pictures may lie; the first that has a picture counts.
        allow_network: fetch addresses too.
        limits: of size and time.
        policy: which (IP address, port) may be connected to.
    """

    def __init__(
        self,
        roots: Sequence[Path] = (),
        allow_network: bool = False,
        limits: FetchLimits | None = None,
        policy: AddressPolicy = is_public,
    ) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self.allow_network = allow_network
        self.limits = limits or FetchLimits()
        self._policy = policy

    def fetch(self, source: str) -> Image.Image:
        """The picture at a path or address, in RGB.

        Raises:
            FetchError: it is not there, refused, too large, too slow, or no picture; the message starts with `source`.
        """
        if source.lower().startswith(("http://", "https://")):
            content = self._download(source)
        elif _SCHEME.match(source):
            raise FetchError(f"{source}: only paths and http(s) addresses are opened")
        else:
            content = self._read(source)
        return decode(content, source, self.limits)

    def _read(self, source: str) -> bytes:
        try:
            paths = [(root / source).resolve() for root in self.roots]
        except (OSError, ValueError, RuntimeError) as error:  # zero bytes, links that lead in circles
            raise FetchError(f"{source!r}: no path ({error})") from error
        inside = [path for root, path in zip(self.roots, paths, strict=True) if path.is_relative_to(root)]
        if self.roots and not inside:
            raise FetchError(f"{source}: outside the folders of the pictures, {', '.join(map(str, self.roots))}")
        for path in inside:
            content = _read_file(path, source, self.limits.num_bytes)
            if content is not None:
                return content
        folders = ", ".join(map(str, self.roots)) or "any folder: no roots were given"
        raise FetchError(f"{source}: no such picture in {folders}")

    def _download(self, source: str) -> bytes:
        if not self.allow_network:
            raise FetchError(f"{source}: fetching from the network is off; set allow_network=True to allow it")
        deadline, address = Deadline(self.limits.seconds), source
        try:
            for _ in range(self.limits.num_redirects + 1):
                content, address = self._ask(address, deadline)
                if content is not None:
                    return content
        except FetchError as error:
            raise FetchError(f"{source}: {error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: addresses that are none
            raise FetchError(f"{source}: cannot be fetched ({error or type(error).__name__})") from error
        raise FetchError(f"{source}: more than {self.limits.num_redirects} redirects")

    def _ask(self, address: str, deadline: Deadline) -> tuple[bytes | None, str]:
        """One request: the picture's bytes, or None and the address to ask next."""
        parts = _split(address)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        connection = CheckedConnection(parts.hostname or "", port, parts.scheme == "https", self._policy, deadline)
        try:
            target = quote(parts.path or "/", _SAFE_CHARACTERS)
            query = f"?{quote(parts.query, _SAFE_CHARACTERS)}" if parts.query else ""
            connection.request("GET", target + query, headers=_HEADERS)
            with connection.getresponse() as response:
                location = response.getheader("Location")
                if response.status in _REDIRECTS and location:
                    return None, urljoin(address, location)
                _check_headers(response, self.limits.num_bytes)
                return _read_body(response, self.limits.num_bytes), address
        finally:
            connection.close()


def _split(address: str) -> SplitResult:
    """The parts of an address.

    Raises:
        FetchError: not http(s), without a host, with a password, or with a port that is none.
    """
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise FetchError(f"{address[:200]!r} is no address ({error})") from error
    if not is_usable or parts.username is not None or parts.password is not None:
        raise FetchError(f"{address[:200]!r} is not a plain http(s) address, which is all that is fetched")
    return parts


def _check_headers(response: http.client.HTTPResponse, num_bytes: int) -> None:
    """Refuse what is no picture before reading it.

    Raises:
        FetchError: another status, type, encoding or size.
    """
    kind = response.headers.get_content_type()
    encoding = response.getheader("Content-Encoding", "identity").strip().lower()
    if response.status != 200:
        raise FetchError(f"the server answered {response.status} {response.reason}")
    if not kind.startswith("image/"):
        raise FetchError(f"the server sent {kind}, wanted image/*")
    if encoding not in ("", "identity"):
        raise FetchError(f"the server packed its answer as {encoding}, which was not asked for")
    if response.length is not None and response.length > num_bytes:
        raise FetchError(f"{response.length} bytes, at most {num_bytes} are read")


def _read_body(response: http.client.HTTPResponse, num_bytes: int) -> bytes:
    content = bytearray()
    while chunk := response.read(min(_CHUNK_BYTES, num_bytes + 1 - len(content))):
        content += chunk
        if len(content) > num_bytes:
            raise FetchError(f"more than {num_bytes} bytes, which are the most that are read")
    return bytes(content)


def _read_file(path: Path, source: str, num_bytes: int) -> bytes | None:
    """At most `num_bytes` + 1 of a file, or of one inside a zip file; None when there is none.

    Raises:
        FetchError: it cannot be read.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(num_bytes + 1)
        archive = next((parent for parent in path.parents if parent.suffix == ".zip" and parent.is_file()), None)
        if archive is None:
            return None
        with zipfile.ZipFile(archive) as packed, packed.open(path.relative_to(archive).as_posix()) as member:
            return member.read(num_bytes + 1)
    except KeyError:
        return None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise FetchError(f"{source}: cannot be read ({error})") from error
