"""The only package that speaks HTTP: session, addresses, replies, archive, transfer, faults."""
