"""Data sets as people have them, converted into prepared ones."""
