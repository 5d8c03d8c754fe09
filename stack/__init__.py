"""One machine: the embedded servers, the supervisor, the command line.

Nothing that a cluster would need lives here: on many machines `python -m ingest` and
`python -m aggregator` run as they are, under any other supervisor.
"""
