// The constants CV_LOAD_IMAGE_COLOR and CV_LOAD_IMAGE_GRAYSCALE, which OpenCV 4 keeps under this name.
#pragma once
#include <opencv2/imgcodecs/legacy/constants_c.h>
