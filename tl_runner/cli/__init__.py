"""The commands, a file each: from the words of a command line to the functions of the package, and back to words."""
