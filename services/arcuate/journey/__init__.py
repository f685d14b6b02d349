"""The order of things: where each case stands, since when, and what it waits for."""
