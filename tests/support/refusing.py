"""A real NATS that refuses one of its two users, and takes it again, by reloads."""

from __future__ import annotations

from tests.support.fix_nats import NatsServer

OTHER = "{ user: other, password: other }"


class Refusing:
    """A NATS with a second user, whose connections outlive what is done to the first."""

    def __init__(self, nats: NatsServer) -> None:
        self.nats = nats
        self._password = nats.url.rpartition("@")[0].rpartition(":")[2]
        self._user = f'{{ user: clickmill, password: "{self._password}" }}'
        nats.reload(
            f'authorization {{ user: clickmill, password: "{self._password}" }}',
            f"authorization {{ users: [ {self._user}, {OTHER} ] }}",
        )

    @property
    def url(self) -> str:
        """The address by the second user."""
        return f"nats://other:other@127.0.0.1:{self.nats.port}"

    def refuse(self) -> None:
        """End the first user's connections, and take no further one."""
        self.nats.reload(self._password, "another")

    def take_again(self) -> None:
        self.nats.reload("another", self._password)

    def forbid(self, subject: str) -> None:
        """The first user may not publish to a subject."""
        self.nats.reload(self._user, self._denied(subject))

    def allow_again(self, subject: str) -> None:
        self.nats.reload(self._denied(subject), self._user)

    def _denied(self, subject: str) -> str:
        permissions = f'permissions: {{ publish: {{ deny: "{subject}" }} }}'
        return f"{self._user[:-2]}, {permissions} }}"
