"""The commands, one file each: arguments in, library call, view out."""
