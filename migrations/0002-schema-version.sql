-- The version of the tables, so that an older aggregator sees that they are newer than it knows.
CREATE TABLE schema_version (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version         int NOT NULL,
    compatible_from int NOT NULL
);
