"""Routers: who decides how much each expert counts. One file each; the file's name is the router's name."""
