"""Assignment: which reader reads which case, and the receipt that says why."""
