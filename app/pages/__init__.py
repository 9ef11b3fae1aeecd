"""One module a page; pages never import one another."""
