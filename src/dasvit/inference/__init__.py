"""Trained models at work: predictions, evaluation on other data, exports."""
