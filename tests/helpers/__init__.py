"""What several tests stand on: small pipelines, graphs, artifacts and a browser."""
