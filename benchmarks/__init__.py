"""Side-by-side timings of this project and its peers, each in one run."""
