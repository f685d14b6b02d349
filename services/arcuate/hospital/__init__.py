"""A synthetic department: seeded people, orders, days and heads, played through the same doors as a real one."""
