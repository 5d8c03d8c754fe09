"""The embedded NATS and Postgres servers of a one-machine system."""
