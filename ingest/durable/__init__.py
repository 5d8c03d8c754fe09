"""What survives the death of a worker: the directory, the spool and the outbox of a source."""
