"""Draft reports: templates as data, values with their passports, nothing invented."""
