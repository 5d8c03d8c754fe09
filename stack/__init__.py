"""One machine: the embedded servers, the supervisor, the command line.

A cluster does not need this package: there, `python -m ingest` and `python -m aggregator` run under
any other supervisor.
"""
