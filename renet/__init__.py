"""ReNet-Caffe: segmentation networks with convolutional and recurrent layers."""
