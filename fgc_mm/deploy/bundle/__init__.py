"""The file of a dynamic network, with what a picture needs beside it."""
