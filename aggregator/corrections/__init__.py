"""Corrections of statistics: what a request asks for, and the ledger that keeps them all."""
