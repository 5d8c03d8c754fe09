"""From a request to what is to be counted, and back to a response."""
