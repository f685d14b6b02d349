"""The record: the one home of clinical facts, as a FHIR R4 server."""
