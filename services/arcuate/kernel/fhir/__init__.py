"""FHIR R4: the strict gate before parsing, types, Bundles, the client and the feed reader."""
