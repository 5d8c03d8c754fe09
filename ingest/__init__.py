"""The ingest worker: the path of a click from the request to NATS.

1. `http/granian_server` passes a request to `_fastpath` or to `http/app`, which find the banner.
2. `_fastcount` adds one to the banner's count in the active epoch, in mapped memory, and answers.
3. Once per flush interval `shipping/sealer` seals that epoch into a frame of `durable/spool`.
4. `shipping/shipper` publishes the frames to JetStream in order, until they are acknowledged.
5. The spool deletes a frame when Postgres has committed it and the keep time has passed.
"""
