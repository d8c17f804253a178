"""Twofold inside other people's libraries: thin, and only where a library cannot open a saved folder or ask a server by itself."""
