"""Any list of networks under one recipe: what is meant, trained alike, in one table."""

from dasvit._callable import make_callable

make_callable(__name__)
