"""Subscriptions: who wants to be told, and is (HL7 Subscriptions R5 Backport 1.1 for R4, rest-hook)."""
