"""Data: corpora, queries and judgements from folders, files, the hub or the machine itself, and the order in which training reads them."""
