"""Processes: started, kept running, replaced, stopped."""
