"""Speed and memory on this machine's processor beside PyTorch, stock Caffe and pydensecrf."""
