"""Records -> tables for a person: the only place, beside the command line, that draws."""
