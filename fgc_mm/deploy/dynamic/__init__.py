"""Networks that compute only the open channels of each image."""
