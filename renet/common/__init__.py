"""Ground floor: command lines, errors, progress, files, the machine, the repository."""
