"""URLs: what is refused before anything is asked, and what a server may do.

The only server is one on 127.0.0.1 that each test starts; no other address is contacted. The rule
that forbids such an address is replaced where the server itself is what is tested.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from geomkit.data import downloads
from geomkit.data.downloads import Limits, check, download, fetch, is_public
from geomkit.data.media import load_image
from geomkit.data.samples import DataConfig, load_samples
from geomkit.errors import SampleError, StoreError
from geomkit.plans import content_sha

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers by path; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers[self.path](self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def content(body: bytes, kind: str = "text/html", status: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def redirect(url: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", url)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def local(address: str) -> bool:
    return address == "127.0.0.1"


SHORT = Limits(size=1000, seconds=1.0)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://example.org/a.png",
        "data:image/png;base64," + "A" * 10_000,
        "gopher://example.org/",
        "//example.org/a.png",
        "http:///a.png",
        "http://user@example.org/a.png",
        "http://user:pass@example.org/a.png",
        "http://a\\@127.0.0.1/",
        "http://a\\.example.org/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org/a b.png",
        "http://example.org/\r\nHost: 127.0.0.1",
        "http://ex\u0430mple.org/",  # a Cyrillic a
        "http://example\u3002org/",  # a full stop that is none
        "http://example.org:80:90/",
        "http://example.org:http/",
        "http://[::1",
        "http://%31%32%37.0.0.1/",
        "http://example.org/" + "a" * 5000,
        " http://example.org/",
        "http://example.org/\x00",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(SampleError, match="Expected a plain http"):
        check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "HTTPS://Example.org:8443/a/b.png?x=1&y=%20;z#part",
        "http://1.2.3.4/a~b_c(d)'e!$*+,=@.jpg",
        "http://[2606:4700::1111]/a.png",
    ],
)
def test_plain_urls_are_taken(url: str) -> None:
    check(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0"]
)
def test_no_spelling_of_the_own_machine_is_asked(server: Server, host: str) -> None:
    with pytest.raises(SampleError, match=r"only public addresses|no address for"):
        download(server.url("/a", host), SHORT)
    assert server.asked == []


def test_all_addresses_of_a_name_count_and_the_checked_one_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a"] = content(b"here")
    asked: list[str] = []

    def named(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        found = {"good.example": ["127.0.0.1"], "mixed.example": ["127.0.0.1", "10.0.0.1"]}
        return [(0, 0, 0, "", (address, port)) for address in found[host]]

    own = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *a, **k: (
            own(host, port, *a, **k) if host[0] == "1" else named(host, port)
        ),
    )
    assert download(server.url("/a", "good.example"), SHORT, local) == b"here"
    assert asked == ["good.example"]  # what the name means is asked once: no second answer counts
    with pytest.raises(SampleError, match=r"mixed\.example is the address 10\.0\.0\.1"):
        download(server.url("/a", "mixed.example"), SHORT, local)


def test_redirects_are_urls_like_others(server: Server) -> None:
    server.answers["/a"] = content(b"here")
    server.answers["/on"] = redirect("/a")
    assert download(server.url("/on"), SHORT, local) == b"here"
    for path, target, match in (
        ("/file", "file:///etc/passwd", "plain http"),
        ("/user", f"http://user@127.0.0.1:{server.port}/a", "plain http"),
        ("/inside", f"http://127.0.0.2:{server.port}/a", r"127\.0\.0\.2, and only public"),
        ("/cloud", "http://169.254.169.254/latest/meta-data", r"169\.254\.169\.254, and only"),
    ):
        server.answers[path] = redirect(target)
        with pytest.raises(SampleError, match=match):
            download(server.url(path), SHORT, local)
    server.answers["/round"] = redirect("/round")
    with pytest.raises(SampleError, match="more than 3 redirects"):
        download(server.url("/round"), SHORT, local)
    assert server.asked.count("/round") == 4


def test_size_and_time_are_capped(server: Server) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            while True:
                request.wfile.write(b"x" * 100)

    def slow(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                request.wfile.write(b"x")
                time.sleep(0.05)

    def silent(_: BaseHTTPRequestHandler) -> None:
        time.sleep(1.5)

    server.answers |= {"/endless": endless, "/slow": slow, "/silent": silent}
    with pytest.raises(SampleError, match="larger than 1,000 bytes"):
        download(server.url("/endless"), SHORT, local)
    for path in ("/slow", "/silent"):
        with pytest.raises(SampleError, match=r"took more than 1 s"):
            download(server.url(path), SHORT, local)


def test_a_packed_answer_is_not_unpacked(server: Server) -> None:
    packed = b"\x1f\x8b" + b"not unpacked"

    def answer(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(packed)))
        request.end_headers()
        request.wfile.write(packed)

    server.answers["/a"] = answer
    assert download(server.url("/a"), SHORT, local) == packed


def test_failures_have_their_reason(server: Server) -> None:
    server.answers["/gone"] = content(b"", status=404)
    with pytest.raises(SampleError, match="answered 404"):
        download(server.url("/gone"), SHORT, local)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SampleError, match="cannot be fetched"):
        download(f"http://127.0.0.1:{port}/", SHORT, local)


def test_what_was_fetched_is_kept_and_a_dead_server_is_asked_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "is_public", local)
    server.answers |= {"/a": content(b"here"), "/gone": content(b"", status=404)}
    folder = tmp_path / "cache"
    for _ in range(3):
        assert fetch(server.url("/a"), folder) == b"here"
        with pytest.raises(SampleError, match="answered 404"):
            fetch(server.url("/gone"), folder)
    assert server.asked == ["/a", "/gone"]
    assert len(list(folder.iterdir())) == 1  # whole files only


def test_a_cache_that_cannot_be_written_stops_the_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "is_public", local)
    server.answers["/a"] = content(b"here")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match="--url-cache"):
        fetch(server.url("/a"), tmp_path / "cache")


def test_a_manifest_of_urls_is_shown(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "is_public", local)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    server.answers |= {"/a": content((tmp_path / "a.png").read_bytes()), "/b": content(b"<html>")}
    rows = [{"id": path, "image": server.url(f"/{path}")} for path in "ab"]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(allow_url=True, url_cache=str(tmp_path / "cache"))
    _, (good, bad) = load_samples(tmp_path / "set.jsonl", data)
    assert server.asked == []  # until it is looked at
    assert load_image(good.image).getpixel((0, 0)) == (255, 0, 0)
    assert content_sha(good.image) == content_sha(tmp_path / "a.png")
    with pytest.raises(SampleError, match="no format that is read here"):
        load_image(bad.image)
    assert server.asked == ["/a", "/b"]


def test_the_environment_plays_no_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/a"] = content(b"here")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert download(server.url("/a"), SHORT, local) == b"here"
