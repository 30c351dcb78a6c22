"""Any list of networks under one recipe: what is meant, trained alike, in one table."""
