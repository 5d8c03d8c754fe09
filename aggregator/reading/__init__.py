"""From rows to answers: ranges, steps, queries, formats, live rates."""
