"""Bulk Data export: everything at one instant of the feed, as NDJSON (HL7 Bulk Data Access 2.0)."""
