"""HL7 v2: lossless reading, escapes, time stamps, MLLP, acknowledgements, and building of what we send."""
