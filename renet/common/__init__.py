"""What everything else stands on: command lines, errors, progress, files, the machine, the repository."""
