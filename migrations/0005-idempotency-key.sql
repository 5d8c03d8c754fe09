-- The keys of batches that were sent with an Idempotency-Key, and what of them is counted.
CREATE TABLE idempotency_key (
    key        uuid        PRIMARY KEY,
    digest     uuid        NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_key_by_time ON idempotency_key (counted_at);
ALTER TABLE source ADD COLUMN uncounted bigint NOT NULL DEFAULT 0;
