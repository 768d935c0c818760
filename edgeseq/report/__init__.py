"""Reports: what a run folder holds, as one self-contained page, as JSON, and as a table in the terminal."""
