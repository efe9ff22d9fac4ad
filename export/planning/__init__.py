"""What a pipeline takes on a device before anything is made: memory, bytes read, and operations, from configs alone."""
