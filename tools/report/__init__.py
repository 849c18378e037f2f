"""Reports on the memory of a compiled program: a page, pictures and a trace."""
