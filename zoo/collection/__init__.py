"""The collection: cards and entries, found, fetched, published, audited."""
