"""Arcuate: one imaging order, from the moment it is placed to a signed report."""
