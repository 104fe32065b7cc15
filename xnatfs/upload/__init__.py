"""The way out: writer, spool and uploader, from the caller through the disk to the server."""
