"""Files of dynamic networks: program, preprocessing, classes and MACs."""
