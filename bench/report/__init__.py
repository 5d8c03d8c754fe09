"""From results to pages: goals, tables, and the pictures of the documentation."""
