"""Is this the right exam, is it safe, which protocol: rules as data over the order and what the record knows."""
