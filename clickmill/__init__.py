"""Clickmill: exact per-minute click counts at very high HTTP rates.

This package is the ground floor: what both halves, `ingest` and `aggregator`, must agree on.
It imports neither of them.
"""
