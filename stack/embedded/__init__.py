"""The NATS and Postgres of a one-machine system."""
