"""The check of the GPU build on a bare machine: any Python from 3.8 on, and the standard library alone."""
