"""The audit trail: who read and wrote patient data, append-only and hash-chained, in a store of its own."""
