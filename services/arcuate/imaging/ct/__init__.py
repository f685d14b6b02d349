"""Head CT without contrast agent: haemorrhage, midline shift, ventricles. Ships in shadow. Start with reading.py."""
