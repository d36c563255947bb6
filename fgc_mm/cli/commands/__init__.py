"""One file per command, each with the main function."""
