"""`clickmill backup` and `clickmill restore`: the database and the uncommitted frames, in one file.

1. `database` finds the Postgres that is backed up or restored.
2. `spools` reads the frames that this database does not have yet.
3. `programs` runs pg_dump and pg_restore.
4. `archive` is the file: complete, or not a backup.
5. `create` and `restore` put these together.
"""
