"""From a request to the clicks that it counts, and back to a response."""
