"""Seal, ship, adopt, and learn what is committed: from counters to frames in NATS."""
