"""Names: the listings of the server, the local overlay, and the namespace that they make."""
