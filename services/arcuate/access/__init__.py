"""Who may enter: people, roles, clients, keys, tokens."""
