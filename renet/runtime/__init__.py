"""Caffe at run time: builds, prototxts read as Caffe reads them, processes of its own."""
