"""Invented heads: a coarse shape model, whole heads drawn from it, T1-weighted pictures of them, and DICOM series."""
