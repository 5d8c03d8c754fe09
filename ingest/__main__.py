"""`python -m ingest`: one ingest worker, as the supervisor starts it."""

from ingest.worker import main

main()
