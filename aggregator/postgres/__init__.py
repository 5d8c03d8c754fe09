"""Postgres itself: connections, arrays, partitions. Knows nothing of clicks."""
