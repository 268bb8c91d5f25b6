#include <fstream>  // NOLINT(readability/streams)
#include <string>
#include <vector>

#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include "boost/filesystem.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/net.hpp"
#include "caffe/util/io.hpp"

#include "image_bombs.hpp"
#include "segmentation_data_fixture.hpp"

namespace caffe {

// What Caffe's own layers and tools read: files, and Datums that hold one.
class HugeImagesTest : public ::testing::Test {
 protected:
  virtual void SetUp() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    MakeTempDir(&folder_);
    pixels_.create(5, 7, CV_8UC3);
    cv::randu(pixels_, 0, 256);
    png_ = Encode(pixels_, ".png");
  }
  virtual void TearDown() { boost::filesystem::remove_all(folder_); }

  string Written(const string& name, const string& bytes) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
    return folder_ + "/" + name;
  }
  static Datum Encoded(const string& bytes) {
    Datum datum;
    datum.set_data(bytes);
    datum.set_encoded(true);
    return datum;
  }
  // A net with this layer, as a file has it.
  static void Run(const string& layer) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("layer { name: 'images' top: 'data' top: 'label' " + layer + " }", &param));
    Net<float> net(param);
    net.Forward();
  }
  static bool Equal(const cv::Mat& a, const cv::Mat& b) {
    return a.size() == b.size() && a.type() == b.type() && cv::norm(a, b, cv::NORM_INF) == 0;
  }

  string folder_, png_;
  cv::Mat pixels_;
};

TEST_F(HugeImagesTest, TestDatumsAreRefusedByTheirHeader) {
  const struct { uint32_t size; const char* message; } bombs[] = {
    {13000, "the Datum's image has height 13000 and width 13000; expected at most 89478485 pixels"},
    {60000, "the Datum's image cannot be decoded: .*MAX_IMAGE_PIXELS"},  // more than OpenCV takes at all
  };
  for (const auto& bomb : bombs) {
    Datum datum = Encoded(PngBomb(png_, bomb.size, bomb.size));
    EXPECT_DEATH(DecodeDatum(&datum, true), bomb.message);
    EXPECT_DEATH(DecodeDatum(&datum, false), bomb.message);
    EXPECT_DEATH(DecodeDatumNative(&datum), bomb.message);
  }
}

TEST_F(HugeImagesTest, TestFilesAreRefusedByTheirHeader) {
  const string file = Written("bomb.png", PngBomb(png_, 13000, 14000));
  EXPECT_DEATH(ReadImageToCVMat(file), "bomb.png' has height 13000 and width 14000; expected at most");
  EXPECT_DEATH(ReadImageToCVMat(Written("bomb.png", PngBomb(png_, 60000, 60000))), "bomb.png' cannot be decoded");
  const string jpeg = Encode(pixels_, ".jpg");
  EXPECT_DEATH(ReadImageToCVMat(Written("bomb.jpg", JpegBomb(jpeg, 20000, 20000))), "has height 20000");
}

TEST_F(HugeImagesTest, TestLayersAreNamed) {
  WriteLmdb(folder_ + "/images", {"0"}, {PngBomb(png_, 13000, 13000)});
  EXPECT_DEATH(Run("type: 'Data' data_param { backend: LMDB batch_size: 1 source: '" + folder_ + "/images' }"),
      "has height 13000[^\n]*\nin the set-up of layer 'images' \\(Data, TEST\\)");
  WriteLmdb(folder_ + "/later", {"0", "1"}, {png_, PngBomb(png_, 13000, 13000)});
  EXPECT_DEATH(Run("type: 'Data' data_param { backend: LMDB batch_size: 2 source: '" + folder_ + "/later' }"),
      "has height 13000[^\n]*\nin reading ahead of layer 'images' \\(Data, TEST\\)");
  const string list = Written("list.txt", Written("bomb.png", PngBomb(png_, 13000, 13000)) + " 0\n");
  EXPECT_DEATH(Run("type: 'ImageData' image_data_param { batch_size: 1 source: '" + list + "' }"),
      "bomb.png' has height 13000[^\n]*\nin the set-up of layer 'images' \\(ImageData, TEST\\)");
}

TEST_F(HugeImagesTest, TestSoundImagesAreReadAsBefore) {
  cv::Mat large;  // enough of it for JPEG 2000's resolutions
  cv::resize(pixels_, large, cv::Size(64, 48));
  for (const char* extension : {".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".jp2"}) {
    const string bytes = Encode(large, extension), file = Written(string("image") + extension, bytes);
    const cv::Mat colour = cv::imread(file, cv::IMREAD_COLOR), grey = cv::imread(file, cv::IMREAD_GRAYSCALE);
    EXPECT_TRUE(Equal(colour, ReadImageToCVMat(file))) << extension;
    EXPECT_TRUE(Equal(grey, ReadImageToCVMat(file, false))) << extension;
    cv::Mat resized;
    cv::resize(colour, resized, cv::Size(9, 4));
    EXPECT_TRUE(Equal(resized, ReadImageToCVMat(file, 4, 9))) << extension;
    EXPECT_TRUE(Equal(colour, DecodeDatumToCVMat(Encoded(bytes), true))) << extension;
    EXPECT_TRUE(Equal(grey, DecodeDatumToCVMat(Encoded(bytes), false))) << extension;
    EXPECT_TRUE(Equal(cv::imread(file, cv::IMREAD_UNCHANGED), DecodeDatumToCVMatNative(Encoded(bytes)))) << extension;
  }
}

// What OpenCV takes for DICOM, in whose reader an assertion fails, or for a format that no reader of ours in Python knows.
TEST_F(HugeImagesTest, TestOtherFormatsAreNotTried) {
  cv::Mat large;
  cv::resize(pixels_, large, cv::Size(64, 48));
  string dicom(180, '\xff'), marked = Encode(large, ".jp2");
  dicom.replace(128, 4, "DICM");
  marked.resize(std::max<size_t>(marked.size(), 140));
  marked.replace(128, 4, "DICM");
  for (const string& bytes : {dicom, marked, Encode(pixels_, ".pfm"), Encode(pixels_, ".hdr"), string("GIF89a")}) {
    EXPECT_TRUE(DecodeDatumToCVMatNative(Encoded(bytes)).empty()) << bytes.substr(0, 4);
    EXPECT_TRUE(ReadImageToCVMat(Written("image", bytes)).empty()) << bytes.substr(0, 4);
  }
}

TEST_F(HugeImagesTest, TestWhatIsNoImageHasNoPixels) {
  EXPECT_TRUE(ReadImageToCVMat(folder_ + "/missing.png").empty());
  EXPECT_TRUE(ReadImageToCVMat(folder_).empty());
  EXPECT_TRUE(ReadImageToCVMat("/dev/zero").empty());
  EXPECT_TRUE(ReadImageToCVMat(Written("empty.png", "")).empty());
  EXPECT_TRUE(ReadImageToCVMat(Written("text.png", "no image")).empty());
  EXPECT_TRUE(DecodeDatumToCVMat(Encoded(""), true).empty());
  EXPECT_TRUE(DecodeDatumToCVMatNative(Encoded("no image")).empty());
}

}  // namespace caffe
