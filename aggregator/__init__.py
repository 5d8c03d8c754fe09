"""The aggregator: deltas come in from NATS, minutes go into Postgres, statistics come out.

The way of a delta:

1. `pull` asks JetStream for the messages of the shards that `leases` gave to this process;
2. `consumer` decodes them, gathers a batch, and takes back what `held` kept of earlier gaps;
3. `store` locks the marks of the batch's sources, lets `fold` (pure) decide which frames are
   the contiguous run after each mark, writes the sums and the new marks, commits;
4. only then `consumer` acknowledges to NATS and broadcasts the marks; `progress` keeps what is
   complete, for the statistics (`queries`, `api`).
"""
