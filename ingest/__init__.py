"""A click's way in, in five lines.

1. `http/granian_server` hands a request to `_fastpath`, or to `http/app`: whose banner is it?
2. `_fastcount` adds one to that banner's count in the active epoch, in mapped memory: answered.
3. Each flush interval `sealer` freezes that epoch and seals it into a frame of the `spool`.
4. `delivery` sends the frame to JetStream, in order, until it is acknowledged.
5. When Postgres says that it is committed, and the keep time has passed, the spool forgets it.
"""
