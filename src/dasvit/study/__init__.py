"""Does a search beat luck? Its searches and trainings, and what their numbers say."""

from dasvit._callable import make_callable

make_callable(__name__)
