"""Places a model can run: one file per device, one file per engine in `runtimes/`."""
