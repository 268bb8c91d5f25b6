"""A trained network over HTTP, and the page to try it on; needs the packages of `pip install renet-caffe[serve]`."""
