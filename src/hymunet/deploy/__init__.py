"""A trained model in use elsewhere: as a file for other runtimes, as a server, as a page."""
