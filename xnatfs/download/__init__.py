"""The way in: reader and fetcher, from the server through the store to the caller."""
