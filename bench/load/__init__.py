"""What sends clicks and keeps the ledger of their answers, and what reads the statistics."""
