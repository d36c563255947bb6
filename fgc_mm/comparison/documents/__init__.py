"""Tables, sentences and figures of documents, from stored results."""
