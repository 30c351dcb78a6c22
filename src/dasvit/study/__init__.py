"""Does a search beat luck? Its searches and trainings, and what their numbers say."""
