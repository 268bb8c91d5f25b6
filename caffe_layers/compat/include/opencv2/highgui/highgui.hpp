// Caffe includes OpenCV 2's highgui for imread, imdecode and imencode, which live in imgcodecs today. Answering the
// old name here spares the real highgui, which is a window toolkit and everything that it pulls in.
#pragma once
#include <opencv2/imgcodecs.hpp>
