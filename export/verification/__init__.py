"""Compares exported graphs with torch: on golden inputs, and by the image they generate."""
