"""Networks that compute the open channels of each image only."""
