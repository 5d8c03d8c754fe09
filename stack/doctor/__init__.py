"""`clickmill doctor`: checks everything that a running system needs, and says what to do."""
