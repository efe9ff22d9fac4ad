"""What exports of weights share: reading a component weight by weight, and publishing the files."""
