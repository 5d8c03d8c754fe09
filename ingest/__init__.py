"""The ingest worker: the path of a click from the request to NATS.

1. `http/granian_server` passes a request to `_fastpath` or to `http/app`, which find the banner.
2. `_fastcount` adds one to the banner's count in the mapped file of `_epochs`, and answers.
3. Each flush interval `shipping/sealer` seals its `_parts` into frames of `durable/spool`.
4. `shipping/shipper` publishes the frames to JetStream in order, until they are acknowledged.
5. The spool deletes a frame when Postgres has committed it and the keep time has passed.
"""
