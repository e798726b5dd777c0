"""What boards sign that they run, checked when it comes and kept for whoever asks."""
