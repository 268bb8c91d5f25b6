// Caffe includes thrust and uses nothing of it.
