"""What a run stands on: devices and processes, checkpoints, signals and deadlines, progress, trackers."""
