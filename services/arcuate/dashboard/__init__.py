"""The dashboard: what people see, and what they can do from there."""
