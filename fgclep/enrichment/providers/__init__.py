"""Who may be asked for features: a language model here or on a server, the knowledge base, or recorded answers."""
