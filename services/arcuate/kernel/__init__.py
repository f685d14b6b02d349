"""What every room stands on: the two languages, codes, clock, settings, errors, storage, durable work and authentication."""
