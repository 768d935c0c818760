"""What each stage of a run does, one file a stage; each function reads folders of earlier stages and fills one of its own."""
