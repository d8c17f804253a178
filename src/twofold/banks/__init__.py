"""Banks: how the low-rank updates of a layer are stored and applied. One file each; the file's name is the bank's name."""
