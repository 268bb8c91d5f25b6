"""Converters of data sets as people have them into prepared ones."""
