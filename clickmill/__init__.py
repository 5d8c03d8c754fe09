"""Clickmill: exact per-minute click counts at very high HTTP rates.

This package is the bottom layer: what both halves, `ingest` and `aggregator`, must agree on.
It imports neither of them.
"""
