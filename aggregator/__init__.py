"""The aggregator: frames come in from NATS, minutes go to Postgres, statistics go out.

The path of a frame, in `writing/`:

1. `pull` requests the messages of the shards that `leases` assigned to this process.
2. `consumer` decodes them into a batch, together with earlier frames from the `reorder` buffer.
3. `store` locks the marks of the batch's sources. `fold` (pure) selects the contiguous run of
   frames after each mark. `store` writes the sums and the new marks and commits.
4. After the commit, `consumer` acknowledges to NATS and broadcasts the marks, and `completeness`
   updates `completeThrough` for the statistics in `reading/`.
"""
