"""What every other place uses: errors, files, processes, downloads, statistics."""
