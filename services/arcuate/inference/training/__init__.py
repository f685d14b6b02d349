"""Training by domain randomisation from label maps; needs the extra `torch`. Start with train.py."""
