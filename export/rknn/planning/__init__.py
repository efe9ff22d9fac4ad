"""Will it fit: partitions graphs, estimates memory and build time, and plans deployments on a board."""
