"""How fast statistics are read; `make bench-stats`."""
