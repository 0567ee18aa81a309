"""URLs to bytes, for manifests of strangers: nothing on the user's own network is ever asked.

    check     http or https, no credentials, no character that two parsers could read differently
    resolve   every address of the host must be public, and the connection goes to one of these
    follow    a redirect is a new URL: checked and resolved again, a few at most
    read      up to a size and for a time; what the server says of its content is not believed
    keep      under the hash of the URL, whole or not at all

Proxies, cookies, credentials and the environment play no part.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import httpcore2

from geomkit.data.sources import regular
from geomkit.errors import SampleError, StoreError

MAX_BYTES = 100 * 2**20
SECONDS = 30.0
REDIRECTS = 3
AGENT = b"geomkit (fetches media that a dataset names by URL)"

Allowed = Callable[[str], bool]
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
_URL = re.compile(rf"(?i:https?)://({_HOST})(?::\d{{1,5}})?(?:[/?][!$-;=?-Z_a-z~]*)?(?:#.*)?")
"""Neither user nor password, backslash, space, control or non-ASCII character, before the `#`."""


def is_public(address: str) -> bool:
    """True for an address of the open internet: not private, loopback, link-local or reserved."""
    found = ipaddress.ip_address(address)
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if isinstance(found, ipaddress.IPv6Address) and found in _TRANSLATED:
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 behind an IPv6 network's gateway


def check(url: str, where: str = "a redirect") -> None:
    """Refuse a URL that is not plainly http(s) to a named host.

    Raises:
        SampleError: it is not; `where` says where it came from.
    """
    if len(url) > 4096 or not _URL.fullmatch(url):
        raise SampleError(
            f"Expected a plain http(s) URL without user, spaces or backslashes in {where}, got"
            f" {url[:200]!r}."
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may take."""

    size: int = MAX_BYTES
    seconds: float = SECONDS
    redirects: int = REDIRECTS


USUAL = Limits()


def fetch(url: str, folder: Path, limits: Limits = USUAL) -> bytes:
    """The bytes at a URL, from `folder` when they were fetched before.

    Raises:
        SampleError: the URL is refused, the server fails, or the content is too large or too slow.
        StoreError: what was fetched cannot be kept.
    """
    kept = folder / hashlib.sha256(url.encode()).hexdigest()
    try:
        return regular(kept).read_bytes()
    except OSError:
        pass
    if reason := _failed(url, folder, limits):
        raise SampleError(reason)
    return kept.read_bytes()


@cache  # a dead server is asked once in a process, not at every look at the sample
def _failed(url: str, folder: Path, limits: Limits) -> str:
    """Download into `folder`; the reason why not, or ""."""
    try:
        content = download(url, limits)
    except SampleError as cause:
        return str(cause)
    _keep(content, folder / hashlib.sha256(url.encode()).hexdigest())
    return ""


def _keep(content: bytes, path: Path) -> None:
    """Whole or not at all, whoever else fetches the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as place:
            whole = Path(place, path.name)
            whole.write_bytes(content)
            whole.replace(path)
    except OSError as cause:
        raise StoreError(
            f"Expected a folder for fetched media at {path.parent}: {cause.strerror}; make room, or"
            " name another with --url-cache."
        ) from cause


def download(url: str, limits: Limits = USUAL, allowed: Allowed | None = None) -> bytes:
    """The bytes at a URL, after at most a few redirects.

    Raises:
        SampleError: as `fetch`.
    """
    until = time.monotonic() + limits.seconds
    backend = _Checked(allowed or is_public)
    with httpcore2.ConnectionPool(network_backend=backend, max_connections=1) as pool:
        for _ in range(limits.redirects + 1):
            check(url, "the manifest" if _ == 0 else "a redirect")
            try:
                found = _answer(pool, url, until, limits)
            except (httpcore2.TimeoutException, TimeoutError) as cause:
                raise SampleError(f"media took more than {limits.seconds:g} s: {url}") from cause
            except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as cause:
                raise SampleError(f"media cannot be fetched: {url}: {cause}") from cause
            if isinstance(found, bytes):
                return found
            url = found
    raise SampleError(f"media cannot be fetched: more than {limits.redirects} redirects to {url}")


def _answer(pool: httpcore2.ConnectionPool, url: str, until: float, limits: Limits) -> bytes | str:
    """The content, or the URL that the server redirects to."""
    wait = max(0.1, until - time.monotonic())
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), wait)
    headers = [(b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", AGENT)]
    plain = url.partition("#")[0]
    with pool.stream("GET", plain, headers=headers, extensions={"timeout": timeout}) as response:
        if response.status in {301, 302, 303, 307, 308}:
            places = [value for name, value in response.headers if name.lower() == b"location"]
            if not places:
                raise SampleError(f"media cannot be fetched: {url} redirects to nowhere")
            return urljoin(plain, places[0].decode("latin-1"))
        if response.status != 200:
            raise SampleError(f"media cannot be fetched: {url} answered {response.status}")
        return _capped(response.iter_stream(), url, until, limits)


def _capped(chunks: Iterable[bytes], url: str, until: float, limits: Limits) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > limits.size:
            raise SampleError(f"media is larger than {limits.size:,} bytes: {url}")
        if time.monotonic() > until:  # a server may send one byte a second for ever
            raise TimeoutError
    return bytes(content)


class _Checked(httpcore2.NetworkBackend):
    """Connects to addresses that it has checked itself: what a name means is asked only once."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to the first address of `host`, when all of them are allowed."""
        addresses = _addresses(host, port)
        for address in addresses:
            if not self._allowed(address):
                raise SampleError(
                    f"media is not fetched: {host} is the address {address}, and only public"
                    " addresses are asked"
                )
        return self._plain.connect_tcp(addresses[0], port, timeout, local_address, socket_options)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as cause:
        raise SampleError(f"media cannot be fetched: no address for {host}") from cause
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
