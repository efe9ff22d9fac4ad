"""The third stage: from a pipeline's folder to what a device's own runtime reads; a format a folder."""
