"""The server: generates images from an exported artifact over HTTP, without torch."""
