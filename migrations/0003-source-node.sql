-- The machine of a source, so that one that is lost can be found and given up by its name.
ALTER TABLE source ADD COLUMN node text NOT NULL DEFAULT '';
