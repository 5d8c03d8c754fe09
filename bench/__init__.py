"""Programs that measure Clickmill and feed it: replay, stress, and the side-by-side benchmark."""
