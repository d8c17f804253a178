"""Search: documents cut into passages, kept in a store, found by a first stage and put in order by the same model."""
