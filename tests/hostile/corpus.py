"""Requests as attackers and broken programs send them, each with the answer it must get.

What HTTP/1.1 (RFC 9112) calls an error and Granian answers all the same is marked `lenient`: it
is harmless here, because nothing of such a request but its path and method decides anything, and
because a connection with any doubt about where a request ends is closed after its answer.

A case's clicks are those of its own banner, BANNER; SMUGGLED is the banner of a request that is
hidden in the body of another one and must never be counted.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

BANNER = 40
SMUGGLED = 41

Ending = Literal["open", "closed", "either"]


class Case(NamedTuple):
    """Bytes to send, the statuses that come back, the clicks counted, and what the server does."""

    name: str
    data: bytes
    statuses: tuple[int, ...]
    clicks: int = 0
    then: Ending = "closed"
    half_close: bool = False
    lenient: bool = False


def post(*headers: str, body: bytes = b"", path: str = f"/counter/{BANNER}") -> bytes:
    """A POST with these header lines, raw; a batch says what it is, unless they do."""
    if path == "/clicks" and not any(h.startswith("Content-Type") for h in headers):
        headers = (*headers, "Content-Type: application/json")
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def line(first: bytes) -> bytes:
    """A request with that first line."""
    return first + b"\r\nHost: localhost\r\n\r\n"


PATH = f"/counter/{BANNER}".encode()
INNER = f"POST /counter/{SMUGGLED} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
BATCH = f'[{{"bannerID": {BANNER}}}]'.encode()
CHUNK = f"{len(BATCH):x}\r\n".encode() + BATCH + b"\r\n"
CHUNKED = "Transfer-Encoding: chunked"

FRAMING = [
    Case("length and chunked", post("Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG"), (200,), 1,
         lenient=True),
    Case("CL.TE smuggling", post("Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + INNER), (200,),
         1, lenient=True),
    Case("TE.CL smuggling", post(CHUNKED, "Content-Length: 4",
         body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER)), (200,), 1, lenient=True),
    Case("TE.CL smuggling, a chunk longer than what comes", post(CHUNKED, "Content-Length: 4",
         body=b"32\r\n" + INNER + b"\r\n0\r\n\r\n"), (408,)),
    Case("CL.TE in a batch", post("Content-Length: 3", CHUNKED, path="/clicks",
         body=CHUNK + b"0\r\n\r\n" + INNER), (200,), 1, lenient=True),
    Case("chunked with a tab", post("Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"), (200,), 1,
         "open"),
    Case("chunked with a vertical tab", post("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
         (400,)),
    Case("space before the colon", post("Transfer-Encoding : chunked", body=b"0\r\n\r\n" + INNER),
         (400,)),
    Case("unknown coding", post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + INNER), (400,)),
    Case("identity", post("Transfer-Encoding: identity", body=INNER), (400,)),
    Case("chunked is not last", post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
         (400,)),
    Case("chunked, identity", post("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
         (400,)),
    Case("chunked twice", post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), (200,), 1, "either",
         lenient=True),
    Case("a coding before chunked", post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
         (200,), 1, "open"),
    Case("chunked in HTTP/1.0", b"POST %s HTTP/1.0\r\n%s\r\n\r\n0\r\n\r\n"
         % (PATH, CHUNKED.encode()), (400,)),
    Case("two lengths, the same", post("Content-Length: 2", "Content-Length: 2", body=b"{}"),
         (200,), 1, "open"),
    Case("two lengths", post("Content-Length: 2", "Content-Length: 40", body=b"{}" + INNER),
         (400,)),
    Case("a list of lengths", post("Content-Length: 2, 2", body=b"{}"), (400,)),
    Case("negative length", post("Content-Length: -1"), (400,)),
    Case("signed length", post("Content-Length: +2", body=b"{}"), (400,)),
    Case("hexadecimal length", post("Content-Length: 0x2", body=b"{}"), (400,)),
    Case("length over 64 bits", post("Content-Length: 99999999999999999999"), (400,)),
    Case("length with letters", post("Content-Length: 2a", body=b"{}"), (400,)),
    Case("empty length", post("Content-Length: "), (400,)),
]  # fmt: skip

CHUNKS = [
    Case("whole", post(CHUNKED, path="/clicks", body=CHUNK + b"0\r\n\r\n"), (200,), 1, "open"),
    Case("extension and trailer", post(CHUNKED, "Trailer: X", path="/clicks", body=CHUNK.replace(
         b"\r\n", b';a="b"\r\n', 1) + b"0\r\nX: x\r\n\r\n"), (200,), 1, "open"),
    Case("a trailer that was not announced", post(CHUNKED, path="/clicks", body=CHUNK
         + b"0\r\nX: x\r\n\r\n"), (400,)),
    Case("no number", post(CHUNKED, path="/clicks", body=b"zz\r\n" + BATCH + b"\r\n0\r\n\r\n"),
         (400,)),
    Case("negative", post(CHUNKED, path="/clicks", body=b"-1\r\n" + BATCH + b"\r\n0\r\n\r\n"),
         (400,)),
    Case("over 64 bits", post(CHUNKED, path="/clicks", body=b"f" * 17 + b"\r\n" + BATCH), (400,)),
    Case("size of another chunk", post(CHUNKED, path="/clicks", body=b"5\r\n" + BATCH), (400,)),
    Case("bare LF", post(CHUNKED, path="/clicks", body=CHUNK.replace(b"\r\n", b"\n")
         + b"0\n\n"), (400,)),
    Case("cut within", post(CHUNKED, path="/clicks", body=CHUNK[:12]), (400,), half_close=True),
    Case("cut, nothing came", post(CHUNKED, path="/clicks"), (400,), half_close=True),
    Case("never goes on", post(CHUNKED, path="/clicks", body=CHUNK[:12]), (408,)),
    Case("broken behind a whole batch", post(CHUNKED, path="/clicks", body=CHUNK + b"zz\r\n"),
         (400,)),
    Case("cut behind a whole batch", post(CHUNKED, path="/clicks", body=CHUNK), (400,),
         half_close=True),
    Case("broken, of a click", post(CHUNKED, body=CHUNK + b"zz\r\n"), (400,)),
    Case("cut, of a click", post(CHUNKED, body=CHUNK), (400,), half_close=True),
    Case("cut, of a click, nothing came", post(CHUNKED, path=f"/stats/{BANNER}"), (400,),
         half_close=True),
    Case("without end, of a click", post(CHUNKED, body=(b"10000\r\n" + b" " * 0x10000
         + b"\r\n") * 20), (413,)),
    Case("without end", post(CHUNKED, path="/clicks", body=(b"10000\r\n" + b" " * 0x10000
         + b"\r\n") * 20), (413,)),
    Case("one byte each", post(CHUNKED, path="/clicks", body=b"".join(
         b"1\r\n%c\r\n" % byte for byte in BATCH) + b"0\r\n\r\n"), (200,), 1, "open"),
]  # fmt: skip

BODIES = [
    Case("shorter than its length", post("Content-Length: 99", path="/clicks", body=BATCH), (400,),
         half_close=True),
    Case("never comes", post("Content-Length: 99", path="/clicks"), (408,)),
    Case("never comes for statistics", post("Content-Length: 99", path=f"/stats/{BANNER}"), (408,)),
    Case("cut, for statistics", post("Content-Length: 99", path=f"/stats/{BANNER}", body=b"{}"),
         (400,), half_close=True),
    Case("ten megabytes promised", post("Content-Length: 10000000", path="/clicks", body=BATCH),
         (413,)),
    Case("ten megabytes sent", post("Content-Length: 10000000", path=f"/stats/{BANNER}",
         body=b"x" * 10_000_000), (413,)),
    Case("never comes, of a click", post("Content-Length: 99"), (408,)),
    Case("never comes, of a pixel", line(b"GET /pixel/40.gif HTTP/1.1\r\nContent-Length: 9"),
         (408,)),
    Case("never comes, of a large click", post("Content-Length: 99999"), (408,)),
    Case("never comes, of what is not there", post("Content-Length: 9", path="/x"), (408,)),
    Case("shorter than its length, of a click", post("Content-Length: 99", body=b"{}"), (400,),
         half_close=True),
    Case("shorter than its length, of a large click", post("Content-Length: 99999", body=b"{}"),
         (400,), half_close=True),
    Case("ten megabytes sent, of a click", post("Content-Length: 10000000",
         body=b"x" * 10_000_000), (413,)),
    Case("ten megabytes expected, of a click", post("Content-Length: 10000000",
         "Expect: 100-continue"), (413,)),
    Case("expects 100-continue, never sends, of a click", post("Content-Length: 99",
         "Expect: 100-continue"), (100, 408)),
    Case("expects 100-continue, never sends", post("Content-Length: 99", "Expect: 100-continue",
         path="/clicks"), (100, 408)),
    Case("expects something else", post("Expect: 200-ok"), (200,), 1, "either", lenient=True),
]  # fmt: skip

LINES = [
    Case("no Host", b"POST %s HTTP/1.1\r\n\r\n" % PATH, (200,), 1, "open", lenient=True),
    Case("two Hosts", post("Host: b"), (200,), 1, "open", lenient=True),
    Case("bad Host", post().replace(b"Host: localhost", b"Host: a b/@\\"), (200,), 1, "open",
         lenient=True),
    Case("bare LF", b"POST %s HTTP/1.1\nHost: localhost\n\n" % PATH, (200,), 1, "open",
         lenient=True),
    Case("bare CR", b"POST %s HTTP/1.1\rHost: a\r\r" % PATH, (400,)),
    Case("absolute URI", line(b"POST http://evil.example%s HTTP/1.1" % PATH), (200,), 1, "open"),
    Case("absolute URI, redirect", line(b"GET https://evil.example/click/40 HTTP/1.1"), (404,), 0,
         "open"),
    Case("absolute URI, another scheme", line(b"GET file:///etc/passwd HTTP/1.1"), (400,)),
    Case("CONNECT", line(b"CONNECT evil.example:443 HTTP/1.1"), (405,), 0, "either"),
    Case("authority alone", line(b"GET evil.example:80 HTTP/1.1"), (404,), 0, "open"),
    Case("asterisk", line(b"OPTIONS * HTTP/1.1"), (204,), 0, "open"),
    Case("fragment", line(b"POST %s#x HTTP/1.1" % PATH), (200,), 1, "open", lenient=True),
    Case("no path", line(b"POST ? HTTP/1.1"), (400,)),
    Case("HTTP/1.0", b"POST %s HTTP/1.0\r\n\r\n" % PATH, (200,), 1),
    Case("HTTP/0.9", b"GET %s\r\n\r\n" % PATH, (400,)),
    Case("HTTP/2.0 on the line", line(b"POST %s HTTP/2.0" % PATH), (400,)),
    Case("HTTP/1.2", line(b"POST %s HTTP/1.2" % PATH), (400,)),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9, ()),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, (400,)),
    Case("words", b"hello\r\n\r\n", (400,)),
    Case("NULs", b"\x00" * 1000, (400,)),
    Case("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n", (400,)),
    Case("two spaces", line(b"POST  %s HTTP/1.1" % PATH), (400,)),
    Case("a space in the path", line(b"POST %s /x HTTP/1.1" % PATH), (400,)),
    Case("NUL in the path", line(b"POST %s\0 HTTP/1.1" % PATH), (400,)),
    Case("raw bytes in the path", line(b"POST /counter/\xff\xfe HTTP/1.1"), (400,)),
    Case("full-width digits", line("POST /counter/\uff11 HTTP/1.1".encode()), (400,), 0, "either"),
    Case("an encoded slash", line(b"POST /counter%2F40 HTTP/1.1"), (200,), 1, "open",
         lenient=True),
    Case("dots", line(b"POST /x/../counter/40 HTTP/1.1"), (404,), 0, "open"),
    Case("an encoded line break", line(b"GET /click/40%0d%0aSet-Cookie:%20a=b HTTP/1.1"), (400,),
         0, "open"),
    Case("NUL in the method", line(b"P\0ST %s HTTP/1.1" % PATH), (400,)),
    Case("a long method", line(b"A" * 300 + b" %s HTTP/1.1" % PATH), (405,), 0, "open"),
    Case("an empty line first", b"\r\n\r\n" + post(), (200,), 1, "open"),
    Case("h2c upgrade", post("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
         "HTTP2-Settings: AAMAAABk"), (200,), 1, "open"),
    Case("WebSocket upgrade", line(b"GET %s HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket"
         b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" % PATH),
         (200,), 1, "open"),
]  # fmt: skip

HEADERS = [
    Case("folded", post("X: a\r\n b"), (400,)),
    Case("NUL", post("X: a\0b"), (400,)),
    Case("CR within", post("X: a\rb"), (400,)),
    Case("raw bytes", post("X: \xff\xfe"), (200,), 1, "open"),
    Case("a space in the name", post("X Y: a"), (400,)),
    Case("no colon", post("XY"), (400,)),
    Case("no name", post(": x"), (400,)),
    Case("100 of them", post(*(f"X{n}: 1" for n in range(99))), (200,), 1, "open"),
    Case("101 of them", post(*(f"X{n}: 1" for n in range(100))), (431,)),
    Case("one of 32 KB", post("X: " + "a" * 32_000), (200,), 1, "open"),
    Case("one of 64 KB", post("X: " + "a" * 65_536), (431,)),
    Case("one of 100 KB", post("X: " + "a" * 100_000), (431,)),
    Case("64 of them of 1 KB", post(*(f"X{n}: {'a' * 1020}" for n in range(64))), (431,)),
    Case("one of 300 KB", post("X: " + "a" * 300_000), (431,)),
    Case("one of 2 MB", post("X: " + "a" * 2_000_000), (431,)),
    Case("a path of 8 KB", line(b"POST %s?%s HTTP/1.1" % (PATH, b"a" * 8192)), (200,), 1, "open"),
    Case("a path of 70 KB", line(b"POST %s?%s HTTP/1.1" % (PATH, b"a" * 70_000)), (431,)),
    Case("a path of 2 MB", line(b"POST %s?%s HTTP/1.1" % (PATH, b"a" * 2_000_000)), (431,)),
    Case("doubled content type", post("Content-Type: text/x", "Content-Type: application/json",
         f"Content-Length: {len(BATCH)}", path="/clicks", body=BATCH), (415,), 0, "open"),
    Case("content type in raw bytes", post("Content-Type: \xff", f"Content-Length: {len(BATCH)}",
         path="/clicks", body=BATCH), (415,), 0, "open"),
    Case("no content type", line(b"POST /clicks HTTP/1.1\r\nContent-Length: %d" % len(BATCH))
         + BATCH, (415,), 0, "open"),
]  # fmt: skip

PIPELINES = [
    Case("three clicks", post() * 3, (200, 200, 200), 3, "open"),
    Case("with bodies", post("Content-Length: 2", body=b"{}") * 3, (200, 200, 200), 3, "open"),
    Case("an error between", post() + line(b"POST /counter/x HTTP/1.1") + post(), (200, 400, 200),
         2, "open"),
    Case("garbage behind", post() + b"\x00garbage\r\n\r\n" + INNER, (200, 400), 1),
    Case("behind Connection: close", post("Connection: close") + INNER, (200,), 1),
    Case("a hundred", post() * 100, (200,) * 100, 100, "open"),
    Case("errors with bodies between", post() + post("Content-Length: 2", path="/x", body=b"{}")
         + post("Content-Length: 2", path="/pixel/40.gif", body=b"{}") + post("Content-Length: 2",
         path="/counter/x", body=b"{}") + post(), (200, 404, 405, 400, 200), 2, "open"),
    Case("chunked between", post() + post(CHUNKED, body=CHUNK + b"0\r\n\r\n") + post(),
         (200, 200, 200), 3, "open"),
    Case("a batch between", post() + post(f"Content-Length: {len(BATCH)}", path="/clicks",
         body=BATCH) + post(), (200, 200, 200), 3, "open"),
]  # fmt: skip

CUT = [
    Case("nothing at all", b"", (), half_close=True),
    Case("within the line", b"POST /counter/4", (), half_close=True),
    Case("within the headers", post()[:-2], (), half_close=True),
]

SIZE = f"Content-Length: {len(BATCH)}"


def batch(*headers: str, host: str = "localhost") -> bytes:
    """A good batch with these header lines besides."""
    sent = post(*headers, SIZE, path="/clicks", body=BATCH)
    return sent.replace(b"Host: localhost", f"Host: {host}".encode())


WRITES = [
    Case("a batch", batch(), (200,), 1, "open"),
    Case("a batch of our own page", batch("Origin: http://localhost"), (200,), 1, "open"),
    Case("text, as any page may send it", batch("Content-Type: text/plain"), (415,), 0, "open"),
    Case("a page of another origin", batch("Origin: http://evil.example"), (403,), 0, "open"),
    Case("a page without an origin", batch("Origin: null"), (403,), 0, "open"),
    Case("two origins", batch("Origin: http://localhost", "Origin: http://evil.example"), (403,),
         0, "open"),
    Case("a name that was rebound", batch(host="evil.example"), (421,), 0, "open"),
    Case("a name that was rebound, and its page", batch("Origin: http://evil.example",
         host="evil.example"), (421,), 0, "open"),
    Case("two hosts", batch("Host: localhost"), (421,), 0, "open"),
    Case("no host", batch().replace(b"Host: localhost\r\n", b""), (421,), 0, "open"),
    Case("the host in the line alone", batch(host="evil.example").replace(b" /clicks",
         b" http://localhost/clicks"), (421,), 0, "open"),
    Case("through a proxy", batch("X-Forwarded-For: 127.0.0.1"), (403,), 0, "open"),
    Case("through a proxy that says so otherwise", batch("Forwarded: for=127.0.0.1"), (403,), 0,
         "open"),
    Case("through nginx, which says nothing", batch().replace(b"HTTP/1.1", b"HTTP/1.0"), (403,)),
    Case("refused, and its body never comes", batch("Origin: null").replace(BATCH, b""), (408,)),
    Case("refused, and its body is cut", batch("Origin: null")[:-3], (400,), half_close=True),
    Case("a click of any page", post("Origin: http://evil.example"), (200,), 1, "open"),
    Case("statistics under another name", line(b"GET /stats/40 HTTP/1.1").replace(b"localhost",
         b"evil.example"), (421,), 0, "open"),
    Case("metrics under another name", line(b"GET /metrics HTTP/1.1").replace(b"localhost",
         b"evil.example"), (421,), 0, "open"),
]  # fmt: skip

CORPUS = {
    "framing": FRAMING, "chunks": CHUNKS, "bodies": BODIES, "lines": LINES, "headers": HEADERS,
    "pipelines": PIPELINES, "cut": CUT, "writes": WRITES,
}  # fmt: skip
