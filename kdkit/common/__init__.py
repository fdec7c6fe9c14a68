"""What all other places use: errors, files, processes, downloads, statistics, checks of input."""
