-- Rollups are derived once, when their time is complete, instead of being added to by each commit.
-- The tables get new names, so that an aggregator of an older release, which still adds to them,
-- fails and writes nothing: it would count clicks twice. Its commits under way are waited for, in
-- the order in which it locks the tables.
LOCK TABLE banner_minute, banner_hour, banner_day IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE banner_hour RENAME TO rollup_hour;
ALTER TABLE banner_day RENAME TO rollup_day;
ALTER INDEX banner_hour_pkey RENAME TO rollup_hour_pkey;
ALTER INDEX banner_day_pkey RENAME TO rollup_day_pkey;
ALTER INDEX IF EXISTS banner_hour_by_time RENAME TO rollup_hour_by_time;
ALTER INDEX IF EXISTS banner_day_by_time RENAME TO rollup_day_by_time;
ALTER TABLE rollup_hour RESET (fillfactor);
ALTER TABLE rollup_day RESET (fillfactor);

-- The old names stay, to be read alone: a release before 0.3 that is started again would otherwise make
-- these tables again, and add to them. OFFSET 0 makes a view that nothing can be written to.
CREATE VIEW banner_hour AS SELECT banner_id, hour, clicks FROM rollup_hour OFFSET 0;
CREATE VIEW banner_day AS SELECT banner_id, day, clicks FROM rollup_day OFFSET 0;

CREATE TABLE rollup_mark (
    singleton    boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    closing      timestamptz NOT NULL,
    quarter_from timestamptz NOT NULL,
    quarter      timestamptz NOT NULL,
    hour         timestamptz NOT NULL,
    day          timestamptz NOT NULL
);
INSERT INTO rollup_mark (closing, quarter_from, quarter, hour, day)
SELECT h, h, h, h, date_trunc('day', now(), 'UTC') FROM date_trunc('hour', now(), 'UTC') AS h;

-- The hours and the day that are still running are in the minutes, and derived from them later.
DELETE FROM rollup_hour WHERE hour >= (SELECT hour FROM rollup_mark);
DELETE FROM rollup_day WHERE day >= (SELECT day FROM rollup_mark);

-- Only days that are still written to and derived from: the older ones would take long.
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'banner_minute'::regclass
          AND c.relname >= 'banner_minute_' || to_char((now() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD')
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I USING brin (minute)'
                       ' WITH (pages_per_range = 32, autosummarize = on)',
                       part || '_by_time', part);
    END LOOP;
END
$$;
