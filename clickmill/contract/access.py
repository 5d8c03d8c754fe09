"""Who may ask for what, by the same rules on both ports. Pure: a request's headers are arguments.

Reading wants a read token where one is set, writing a write token. Without a write token only this
machine may write, and only if no web page in its browser can be behind the request: `Host` must
name this server (a name of the attacker may resolve to 127.0.0.1: DNS rebinding), `Origin` must be
its own (a page may send a POST anywhere), and no proxy may have passed it on (behind one, every
client has the address of this machine).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from clickmill.contract.problem import (
    Problem,
    foreign_host,
    foreign_origin,
    no_read_token,
    not_local,
    read_only,
    unauthorized,
)
from clickmill.contract.tokens import Tokens

HEADERS: Final = ("host", "origin", "authorization")
"""The headers that decide; besides them those that `is_of_a_proxy` knows."""
_PROXIES: Final = frozenset({"forwarded", "via", "x-real-ip"})
_PROXYS_PREFIX: Final = "x-forwarded-"
_MAX_CLIENT_CHARS: Final = 40
_V6_NETWORK_CHARS: Final = 19
"""Of a /64 in full notation: "2001:0db8:0000:0000"."""
_PROXYS_HTTP: Final = ("1.0", "1")
"""What nginx speaks to its backends by default, without a header that shows it: HTTP/1.0, in the
words of ASGI and of RSGI."""


def is_of_a_proxy(name: str) -> bool:
    """Whether a header of this name (in lower case) is one that proxies add."""
    return name in _PROXIES or name.startswith(_PROXYS_PREFIX)


class Caller(NamedTuple):
    """What a request says of its sender: all values of each header that decides."""

    address: str
    """Of the peer, without its port."""
    http_version: str
    hosts: Sequence[str]
    origins: Sequence[str]
    authorization: Sequence[bytes]
    is_proxied: bool
    forwarded_for: Sequence[str] = ()

    @property
    def client(self) -> str:
        """Who this is, among those who share a bound: the address, or its network in IPv6, where
        one machine has many. Of what a proxy on this machine passed on, what it added last."""
        address = self.address
        if self.forwarded_for and is_loopback(address):
            address = self.forwarded_for[-1].rpartition(",")[2].strip()
        ip = _ip(address)
        if ip is None:
            return address[:_MAX_CLIENT_CHARS]
        return ip.exploded[:_V6_NETWORK_CHARS] if ip.version == 6 else address

    @property
    def is_local(self) -> bool:
        """Whether it comes from this machine, and from no one behind a proxy on it."""
        is_direct = not self.is_proxied and self.http_version not in _PROXYS_HTTP
        return is_direct and is_loopback(self.address)


class Hosts:
    """The names of this server: IP addresses, `localhost`, and those of a setting."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(_plain(name) for name in allowed if name)

    @classmethod
    def parse(cls, setting: str) -> Hosts:
        """Names of the setting's text, with commas between."""
        return cls(setting.split(","))

    def includes(self, host: str) -> bool:
        """Whether a value of `Host`, with or without a port, names this server.

        An IP address always does: a page that was loaded from one can't make it another machine's.
        """
        name = _name_of(host)
        return name == "localhost" or name in self._allowed or _ip(name) is not None

    def is_foreign(self, origin: str, host: str) -> bool:
        """Whether a page of this origin is not ours: not of this host, nor of a name set."""
        authority = origin.lower().partition("://")[2]  # of "null", nothing
        is_this = bool(authority) and authority == host.lower()
        return not is_this and _name_of(authority) not in self._allowed


class Access:
    """The rules of one port: each gives the reason for a refusal, or None.

    Not raised: an exception that is kept for later keeps the frames around it, and Granian closes
    a connection only when nothing refers to its request any more.
    """

    def __init__(
        self, read: Tokens, write: Tokens, hosts: Hosts, always_closed: bool = False
    ) -> None:
        """`always_closed`: reading needs a token, even if none is set."""
        self._read, self._write, self._hosts = read, write, hosts
        self._always_closed = always_closed

    def host_refusal(self, caller: Caller) -> Problem | None:
        """421 for another name than ours. A program may leave `Host` out; a browser never does."""
        given = filter(None, caller.hosts)  # Granian's ASGI has an empty one where there is none
        return None if all(map(self._hosts.includes, given)) else foreign_host()

    def read_refusal(self, caller: Caller) -> Problem | None:
        """401 without a token that may read; those that may write may read too. Where everyone may
        read, 421 for another name than ours."""
        if not self._read and not self._always_closed:
            return self.host_refusal(caller)
        if self._read.includes(caller.authorization) or self._may_write(caller):
            return None
        return unauthorized() if self._read else no_read_token()

    def write_refusal(self, caller: Caller) -> Problem | None:
        """401 without a token, 403 with one that may not write; see this module's description."""
        host = caller.hosts[0] if len(caller.hosts) == 1 else ""
        if any(self._hosts.is_foreign(origin, host) for origin in caller.origins):
            return foreign_origin()
        if not self._write:
            if not self._hosts.includes(host):
                return foreign_host()
            return None if caller.is_local else not_local()
        if self._may_write(caller):
            return None
        return read_only() if self._read.includes(caller.authorization) else unauthorized()

    def _may_write(self, caller: Caller) -> bool:
        return self._write.includes(caller.authorization)


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _name_of(host: str) -> str:
    """Name or address of a host that may have a port; "" for what is none."""
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        name = address if bracket and _is_port(port.removeprefix(":")) else ""
        return name if ":" in name else ""
    name, _, port = host.partition(":")
    return _plain(name) if _is_port(port) else ""


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= 5)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address, or can have it."""
    if address == "localhost":
        return True
    ip = _ip(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return ip is not None and bool((mapped or ip).is_loopback)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text is; None where it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
