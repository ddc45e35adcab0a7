"""The shell: moves bytes and time between the operating system and the core, decides nothing."""
