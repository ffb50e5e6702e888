"""From a question to hits. Reads an index; never writes one."""
