-- The tables of Clickmill. Every aggregator applies this file at its start, as one transaction
-- under one advisory lock, so several may start at once; everything in it can be repeated.
--
-- Who writes: only aggregator/writing/store.py (minutes, late clicks, marks, quarantine, all in the
-- same transaction), aggregator/writing/rollup.py (rollups and their mark),
-- aggregator/postgres/partitions.py and retention.py (partitions, what is past its time),
-- aggregator/writing/top_lists.py (rollup_top), aggregator/reading/banners.py (banner),
-- aggregator/corrections/ledger.py (correction).

-- Clicks of a banner in a minute: the statistics themselves.
--   * Partitioned by UTC day: retention is a DROP instead of a DELETE, and the hot part is small.
--   * Minutes are kept for a while, their rollups for longer: see the table retention.
--   * The partitions banner_minute_YYYYMMDD are made ahead, and on demand for late minutes.
--     No DEFAULT partition: rows in it would forbid making the right one later.
--   * The primary key begins with the banner: the common question is one banner over a range.
--   * minute is the start of the minute plus the writer's slot (0 to 15) in microseconds, so each
--     aggregator has rows of its own and never waits for a row that another one has locked. To
--     read clicks by minute, sum over date_trunc('minute', minute). A column for the slot would
--     make each index entry a third longer and would rebuild the key of every partition.
CREATE TABLE IF NOT EXISTS banner_minute (
    banner_id int         NOT NULL,
    minute    timestamptz NOT NULL,
    clicks    bigint      NOT NULL,
    PRIMARY KEY (banner_id, minute)
) PARTITION BY RANGE (minute);

-- Rollups, so that a year by day does not read half a million minutes. They are derived once, when
-- their time is complete: quarter-hours from minutes, hours from quarter-hours, days from hours.
-- Rows are written once and seldom updated, so their pages are filled.
-- Quarter-hours serve the zones whose days begin at half or quarter hours of UTC.
CREATE TABLE IF NOT EXISTS rollup_quarter (
    banner_id int         NOT NULL,
    quarter   timestamptz NOT NULL,
    clicks    bigint      NOT NULL,
    PRIMARY KEY (banner_id, quarter)
);

CREATE TABLE IF NOT EXISTS rollup_hour (
    banner_id int         NOT NULL,
    hour      timestamptz NOT NULL,
    clicks    bigint      NOT NULL,
    PRIMARY KEY (banner_id, hour)
);

-- Days begin at 00:00 UTC; other time zones are summed from hours and quarter-hours.
CREATE TABLE IF NOT EXISTS rollup_day (
    banner_id int         NOT NULL,
    day       timestamptz NOT NULL,
    clicks    bigint      NOT NULL,
    PRIMARY KEY (banner_id, day)
);

-- The names of the rollups before version 4, to be read alone. A release before 0.3 would otherwise
-- make such tables at its start, and add to them instead of to these.
CREATE OR REPLACE VIEW banner_hour AS SELECT banner_id, hour, clicks FROM rollup_hour OFFSET 0;
CREATE OR REPLACE VIEW banner_day AS SELECT banner_id, day, clicks FROM rollup_day OFFSET 0;

-- How far the rollups reach, one row.
--   quarter, hour, day: the rollups hold everything before this moment; the rest is in minutes.
--   quarter_from: where quarter-hours begin. Older ones are derived a day at a time, backwards.
--   closing: clicks of earlier minutes also go to rollup_late. It is moved before minutes are
--   summed, while no writer is at work, so that none of their clicks can be missed.
CREATE TABLE IF NOT EXISTS rollup_mark (
    singleton    boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    closing      timestamptz NOT NULL,
    quarter_from timestamptz NOT NULL,
    quarter      timestamptz NOT NULL,
    hour         timestamptz NOT NULL,
    day          timestamptz NOT NULL
);
INSERT INTO rollup_mark (closing, quarter_from, quarter, hour, day)
SELECT today, 'epoch', today, today, today FROM date_trunc('day', now(), 'UTC') AS today
ON CONFLICT DO NOTHING;

-- Clicks that came for minutes before rollup_mark.closing: they are in banner_minute, and not yet
-- in the rollups. Answers from rollups add them; rollup.py moves them to the rollups.
-- Invariant, before each mark and in every snapshot: rollup + late = minutes.
CREATE TABLE IF NOT EXISTS rollup_late (
    banner_id int         NOT NULL,
    minute    timestamptz NOT NULL,
    clicks    bigint      NOT NULL
);

-- The busiest banners of each quarter-hour, hour and day that is rolled up, so that the top list of a
-- month needs no sum over all banners: see aggregator/reading/top.py. Two triggers note what is to be
-- made, whichever release writes; aggregator/writing/top_lists.py makes it.
--   banners, clicks: at most 1,000, the busiest first. NULL: to be made, and until then not used.
--   below: no banner outside the list has more clicks. total: clicks of all banners.
CREATE TABLE IF NOT EXISTS rollup_top (
    unit    text        NOT NULL CHECK (unit IN ('quarter', 'hour', 'day')),
    start   timestamptz NOT NULL,
    total   bigint,
    below   bigint,
    banners int[],
    clicks  bigint[],
    PRIMARY KEY (unit, start)
);

-- Notes that lists of a unit are to be made, or made again. A row that says so already is written all
-- the same: whoever makes the list from an older snapshot then fails, and tries again.
CREATE OR REPLACE FUNCTION clickmill_top_is_due(the_unit text, moments timestamptz[]) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO rollup_top (unit, start) SELECT DISTINCT the_unit, unnest(moments)
    ON CONFLICT (unit, start) DO UPDATE SET total = NULL, below = NULL, banners = NULL, clicks = NULL
$$;

-- When the mark moves: the lists of what was rolled up.
CREATE OR REPLACE FUNCTION clickmill_rolled_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM clickmill_top_is_due('quarter', ARRAY (
        SELECT generate_series(old.quarter, new.quarter - interval '15 minutes', '15 minutes')
        UNION ALL
        SELECT generate_series(new.quarter_from, old.quarter_from - interval '15 minutes',
                               '15 minutes')));
    PERFORM clickmill_top_is_due('hour', ARRAY (
        SELECT generate_series(old.hour, new.hour - interval '1 hour', '1 hour')));
    PERFORM clickmill_top_is_due('day', ARRAY (
        SELECT generate_series(old.day, new.day - interval '24 hours', '24 hours')));
    RETURN NULL;
END
$$;

-- When late clicks are moved to the rollups: the lists of all that these change.
CREATE OR REPLACE FUNCTION clickmill_late_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM clickmill_top_is_due('quarter', ARRAY (
        SELECT date_bin('15 minutes', minute, 'epoch') FROM late, rollup_mark
        WHERE minute >= quarter_from AND minute < quarter));
    PERFORM clickmill_top_is_due('hour', ARRAY (
        SELECT date_trunc('hour', minute, 'UTC') FROM late, rollup_mark WHERE minute < hour));
    PERFORM clickmill_top_is_due('day', ARRAY (
        SELECT date_trunc('day', minute, 'UTC') FROM late, rollup_mark WHERE minute < day));
    RETURN NULL;
END
$$;

-- What is past its time: of minutes (unit 'minute'), or of rollups (unit 'rollup'), what lies
-- between gone_from and kept_from is deleted, or soon will be. Written, and committed, a while
-- before anything is deleted, so that no answer under way counts on what goes.
CREATE TABLE IF NOT EXISTS retention (
    unit      text        PRIMARY KEY CHECK (unit IN ('minute', 'rollup')),
    gone_from timestamptz NOT NULL,
    kept_from timestamptz NOT NULL,
    moved_at  timestamptz NOT NULL DEFAULT now()
);

-- The register: names for people, targets for /click/{id}. A banner counts without being in it.
CREATE TABLE IF NOT EXISTS banner (
    id         int  PRIMARY KEY,
    name       text,
    target_url text
);

-- The high-water mark of each source (one incarnation of one worker): the last seq applied and
-- its cumulative clicks. Locking this row is the fence that makes each frame count once.
-- Rows are never deleted: a message that turns up late must still find its mark.
--   sealed_at: everything the source answered before it is in frames up to last_seq.
--   closed: no further frame will come; an open source that falls silent holds back
--   completeThrough. `clickmill sources give-up` closes those of a machine that is lost.
--   uncounted: clicks of total that are in no table, since their batch was counted before as a frame
--   of another source or seq, or was set aside.
--   node: the machine, by CLICKMILL_NODE or its host name; '' from a worker of 0.1.
CREATE TABLE IF NOT EXISTS source (
    source     uuid        PRIMARY KEY,
    shard      int         NOT NULL,
    last_seq   bigint      NOT NULL DEFAULT 0,
    total      bigint      NOT NULL DEFAULT 0,
    sealed_at  timestamptz NOT NULL DEFAULT to_timestamp(0),
    closed     boolean     NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    node       text        NOT NULL DEFAULT '',
    uncounted  bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The keys of batches that were sent with an Idempotency-Key: inserted in the transaction that counts
-- the batch, so that it counts once, whoever sends it again to whom. Deleted some days after no copy
-- of the batch can count any more (clickmill/batches.py).
--   key, digest: of the key's text and of what the batch asks to count, 128 bits each.
CREATE TABLE IF NOT EXISTS idempotency_key (
    key        uuid        PRIMARY KEY,
    digest     uuid        NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now()
);

-- Sources of machines that were given up as lost: who did it, when, and what may be missing.
--   missing_from: every click that the source answered before this moment is counted.
--   total: its clicks that were counted by then; last_seen: its last heartbeat.
--   returned_at: it came back after all; its frames count as any others.
CREATE TABLE IF NOT EXISTS source_given_up (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       uuid        NOT NULL,
    node         text        NOT NULL,
    given_up_at  timestamptz NOT NULL DEFAULT now(),
    given_up_by  text        NOT NULL,
    last_seen    timestamptz NOT NULL,
    missing_from timestamptz NOT NULL,
    total        bigint      NOT NULL,
    returned_at  timestamptz
);

-- What could not be counted, with the evidence. reason begins with one word:
--   unreadable: the bytes are no frame; clicks is NULL, since it can't be known
--   lost_range: frames that no spool has any more; clicks says how many are missing
--   total:      the frame was counted, but its running total disagrees by this many clicks
--   refused:    Postgres refused the frame's counts; clicks is their sum
--   key:        another batch was counted with this batch's Idempotency-Key
--   late:       a batch came so long after it was sealed that its key may be forgotten
CREATE TABLE IF NOT EXISTS quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    source      uuid,
    seq         bigint,
    reason      text NOT NULL,
    clicks      bigint,
    raw         bytea
);

-- Corrections: what is added to the clicks that were counted, or taken from them, with who did it and
-- why. Rows are never changed: a correction is taken back by another one with the opposite clicks.
--   kind: 'clicks' (as many in each minute), 'void' (all clicks of the range, as they stood then), or
--   'taken_back' (the opposite of takes_back). clicks: the sum of its correction_minute.
CREATE TABLE IF NOT EXISTS correction (
    id         bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    made_at    timestamptz NOT NULL DEFAULT now(),
    author     text        NOT NULL,
    reason     text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('clicks', 'void', 'taken_back')),
    banners    int[]       NOT NULL,
    ts_from    timestamptz NOT NULL,
    ts_to      timestamptz NOT NULL,
    per_minute bigint      CHECK ((kind = 'clicks') = (per_minute IS NOT NULL)),
    takes_back bigint      UNIQUE CHECK ((kind = 'taken_back') = (takes_back IS NOT NULL)),
    clicks     bigint      NOT NULL
);

-- The clicks of corrections by minute: answers add them to what is counted.
CREATE TABLE IF NOT EXISTS correction_minute (
    banner_id     int         NOT NULL,
    minute        timestamptz NOT NULL,
    correction_id bigint      NOT NULL,
    clicks        bigint      NOT NULL,
    PRIMARY KEY (banner_id, minute, correction_id)
);

CREATE OR REPLACE FUNCTION clickmill_keep_corrections() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'corrections are never changed: take one back with POST /corrections';
END
$$;

-- The version of these tables, one row: see migrations/README.md.
--   compatible_from: the oldest version whose aggregators may still write here.
CREATE TABLE IF NOT EXISTS schema_version (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version         int NOT NULL,
    compatible_from int NOT NULL
);

-- Asked for first, because CREATE INDEX IF NOT EXISTS locks its table against writers before it
-- looks: an aggregator that starts beside one that writes would stop it, or deadlock with it.
DO $$
BEGIN
    -- For "all banners in a range" (top lists), which the primary keys can't serve.
    IF to_regclass('rollup_quarter_by_time') IS NULL THEN
        CREATE INDEX rollup_quarter_by_time ON rollup_quarter (quarter, banner_id);
    END IF;
    IF to_regclass('rollup_hour_by_time') IS NULL THEN
        CREATE INDEX rollup_hour_by_time ON rollup_hour (hour, banner_id);
    END IF;
    IF to_regclass('rollup_day_by_time') IS NULL THEN
        CREATE INDEX rollup_day_by_time ON rollup_day (day, banner_id);
    END IF;
    IF to_regclass('idempotency_key_by_time') IS NULL THEN
        CREATE INDEX idempotency_key_by_time ON idempotency_key (counted_at);
    END IF;
    IF to_regclass('correction_minute_by_time') IS NULL THEN
        CREATE INDEX correction_minute_by_time ON correction_minute (minute, banner_id);
        CREATE INDEX correction_minute_by_correction ON correction_minute (correction_id);
        CREATE TRIGGER keep_corrections BEFORE UPDATE OR DELETE OR TRUNCATE ON correction
            FOR EACH STATEMENT EXECUTE FUNCTION clickmill_keep_corrections();
        CREATE TRIGGER keep_corrections BEFORE UPDATE OR DELETE OR TRUNCATE ON correction_minute
            FOR EACH STATEMENT EXECUTE FUNCTION clickmill_keep_corrections();
    END IF;
    -- Without both triggers lists may be wrong, as after a release that does not know them has restored
    -- a backup: all are made anew. The tables are locked in the order in which a rollup locks them.
    IF (SELECT count(*) < 2 FROM pg_trigger
        WHERE (tgrelid, tgname) IN (('rollup_late'::regclass, 'late_moved'),
                                    ('rollup_mark'::regclass, 'rolled_up'))) THEN
        CREATE OR REPLACE TRIGGER late_moved AFTER DELETE ON rollup_late REFERENCING OLD TABLE AS late
            FOR EACH STATEMENT EXECUTE FUNCTION clickmill_late_moved();
        CREATE OR REPLACE TRIGGER rolled_up AFTER UPDATE ON rollup_mark
            FOR EACH ROW EXECUTE FUNCTION clickmill_rolled_up();
        CREATE INDEX IF NOT EXISTS rollup_top_due ON rollup_top (unit, start) WHERE banners IS NULL;
        DELETE FROM rollup_top;
        PERFORM clickmill_top_is_due('quarter', ARRAY (
            SELECT generate_series(greatest(oldest, quarter_from), quarter - interval '15 minutes',
                                   '15 minutes')
            FROM rollup_mark, (SELECT min(quarter) FROM rollup_quarter) AS q (oldest)
            WHERE oldest IS NOT NULL));
        PERFORM clickmill_top_is_due('hour', ARRAY (
            SELECT generate_series(oldest, hour - interval '1 hour', '1 hour')
            FROM rollup_mark, (SELECT min(hour) FROM rollup_hour) AS h (oldest)
            WHERE oldest IS NOT NULL));
        PERFORM clickmill_top_is_due('day', ARRAY (
            SELECT generate_series(oldest, day - interval '24 hours', '24 hours')
            FROM rollup_mark, (SELECT min(day) FROM rollup_day) AS d (oldest)
            WHERE oldest IS NOT NULL));
    END IF;
    -- The few open ones among all that ever were, read by each aggregator once a second.
    IF to_regclass('source_open') IS NULL THEN
        CREATE INDEX source_open ON source (source) WHERE NOT closed;
    END IF;
END
$$;

-- Clicks for people who write SQL (docs/analysis.md): these stay, whatever the tables become. Several
-- rows may be of the same banner and time: they are to be summed.
CREATE OR REPLACE VIEW clicks_by_minute AS
SELECT banner_id, minute, clicks FROM banner_minute
UNION ALL
SELECT banner_id, minute, clicks FROM correction_minute;

CREATE OR REPLACE VIEW clicks_by_hour AS
SELECT banner_id, hour, clicks FROM rollup_hour WHERE hour < (SELECT hour FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('hour', minute, 'UTC'), clicks FROM rollup_late
WHERE minute < (SELECT hour FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('hour', minute, 'UTC'), clicks FROM banner_minute
WHERE minute >= (SELECT hour FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('hour', minute, 'UTC'), clicks FROM correction_minute;

CREATE OR REPLACE VIEW clicks_by_day AS
SELECT banner_id, day, clicks FROM rollup_day WHERE day < (SELECT day FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('day', minute, 'UTC'), clicks FROM rollup_late
WHERE minute < (SELECT day FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('day', minute, 'UTC'), clicks FROM banner_minute
WHERE minute >= (SELECT day FROM rollup_mark)
UNION ALL
SELECT banner_id, date_trunc('day', minute, 'UTC'), clicks FROM correction_minute;

-- Makes the partition of one UTC day, if it is missing. Made apart and then attached, because
-- ATTACH lets readers and writers of the other partitions go on, where CREATE ... PARTITION OF
-- would wait for all of them.
-- Fillfactor: rows of the running minute are updated with each commit, often all rows of a page in
-- one transaction. With just over half of each page free all such updates are HOT (no index work,
-- pruned in place): measured 100 %, against 76 % at 70; and the table is smaller.
-- The BRIN index finds the pages of some minutes, of all banners: minutes lie in the order of time.
-- Pages that it has no summary of are all read, so autovacuum summarizes them as they fill up.
CREATE OR REPLACE FUNCTION clickmill_make_partition(utc_day date) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    part text := 'banner_minute_' || to_char(utc_day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(1131179883, 1001);
    IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE banner_minute INCLUDING DEFAULTS)'
                       ' WITH (fillfactor = 48)', part);
        EXECUTE format('CREATE INDEX %I ON %I USING brin (minute)'
                       ' WITH (pages_per_range = 32, autosummarize = on)',
                       part || '_by_time', part);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(part)) THEN
        EXECUTE format('ALTER TABLE banner_minute ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       part, utc_day::timestamptz, (utc_day + 1)::timestamptz);
    END IF;
END
$$;

-- The UTC days that have a partition.
CREATE OR REPLACE FUNCTION clickmill_partition_days() RETURNS SETOF date
LANGUAGE sql STABLE
AS $$
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'banner_minute'::regclass AND c.relname ~ '^banner_minute_[0-9]{8}$'
    ORDER BY 1
$$;

-- Drops the minutes of one day. A DROP blocks everything that reads or writes banner_minute while it
-- waits for its lock, and until its transaction ends. So it waits only for an instant (the caller
-- tries again later), and its transaction does nothing else.
CREATE OR REPLACE FUNCTION clickmill_drop_day(utc_day date) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC' SET lock_timeout = '40ms'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1131179883, 1001);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'banner_minute_' || to_char(utc_day, 'YYYYMMDD'));
END
$$;

-- The role of those who only look, such as Grafana: it reads these tables and can do nothing
-- else. It can't log in before somebody gives it a password: ALTER ROLE clickmill_read PASSWORD …
-- Roles belong to the whole server, so another database may have made it, this very moment even;
-- and an owner who may not make roles goes without.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clickmill_read') THEN
        CREATE ROLE clickmill_read LOGIN CONNECTION LIMIT 20;
    END IF;
    IF (SELECT rolconfig IS NULL FROM pg_roles WHERE rolname = 'clickmill_read') THEN
        ALTER ROLE clickmill_read SET default_transaction_read_only = on;
        ALTER ROLE clickmill_read SET statement_timeout = '30s';
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    RAISE NOTICE 'clickmill_read was not made: %', SQLERRM;
END
$$;

-- Grants what it may read, and revokes what Postgres allows to every role by default.
DO $$
DECLARE
    part text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clickmill_read') THEN
        RETURN;
    END IF;
    FOREACH part IN ARRAY '{banner_minute,rollup_quarter,rollup_hour,rollup_day,rollup_late,rollup_mark,rollup_top,retention,banner,source,idempotency_key,source_given_up,quarantine,correction,correction_minute,clicks_by_minute,clicks_by_hour,clicks_by_day}'::text[] LOOP
        IF NOT has_table_privilege('clickmill_read', part, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON %I TO clickmill_read', part);
        END IF;
    END LOOP;
    IF has_function_privilege('clickmill_read', 'clickmill_drop_day(date)', 'EXECUTE') THEN
        REVOKE EXECUTE ON FUNCTION clickmill_make_partition(date), clickmill_drop_day(date),
            clickmill_partition_days() FROM PUBLIC;
    END IF;
    IF has_database_privilege('clickmill_read', current_database(), 'TEMPORARY') THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'clickmill_read was not given what it reads: %', SQLERRM;
END
$$;
