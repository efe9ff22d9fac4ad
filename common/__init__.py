"""What every part of the package uses: errors, progress, memory, threads, and fingerprints of source code."""
