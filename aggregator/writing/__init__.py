"""From a message in NATS to rows in Postgres, exactly once."""
