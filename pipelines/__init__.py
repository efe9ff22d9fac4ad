"""TODO pipelines."""
