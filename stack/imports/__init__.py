"""`clickmill import FILE`: clicks of another counter, or of an access log, counted exactly once.

1. `accesslog` and `rows` read the file: rows of banner, time and count.
2. `chunks` makes batches of them, each with a key from the file's content and the place in it.
3. `client` sends each batch until it is answered.
4. `run` reads the whole file first, and sends only what is right from end to end.
"""
