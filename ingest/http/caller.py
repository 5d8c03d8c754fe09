"""What an RSGI request says of its sender, for the rules of `contract.access`."""

from __future__ import annotations

from typing import Any, Protocol

from clickmill.contract.access import Caller, is_of_a_proxy


class Scope(Protocol):
    """The part of an RSGI scope that is read."""

    path: str
    method: str
    query_string: str
    client: str
    http_version: str

    @property
    def headers(self) -> Any:
        """The header map; each access copies it."""


def caller_of(scope: Scope) -> Caller:
    """The sender of a request."""
    headers = scope.headers
    return Caller(
        address=scope.client.rpartition(":")[0].strip("[]"),
        http_version=scope.http_version,
        hosts=headers.get_all("host"),
        origins=headers.get_all("origin"),
        authorization=[value.encode() for value in headers.get_all("authorization")],
        is_proxied=any(map(is_of_a_proxy, headers.keys())),
        forwarded_for=headers.get_all("x-forwarded-for"),
    )
