"""Starts, restarts, replaces and stops processes."""
