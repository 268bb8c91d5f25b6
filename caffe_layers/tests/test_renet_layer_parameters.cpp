#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"

#include "renet_layer_run.hpp"

namespace caffe {

TYPED_TEST(ReNetLayerTest, ParameterShapes) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : ReNetUnits()) {
    const ReNetCase c = unit.Map(1, 5, 4, 4).Patch(3, 2).Hidden(7);
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> run(c);
    const vector<shared_ptr<Blob<Dtype> > >& blobs = run.layer()->blobs();
    ASSERT_EQ(2 * c.scan_blobs(), blobs.size());
    const int rows = c.gates() * 7;
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      EXPECT_TRUE((vector<int>{rows, 30}) == blobs[first]->shape());
      EXPECT_TRUE((vector<int>{rows}) == blobs[first + 1]->shape());
      EXPECT_TRUE((vector<int>{rows, 7}) == blobs[first + 2]->shape());
      if (c.peephole) {
        EXPECT_TRUE((vector<int>{3, 7}) == blobs[first + 3]->shape());
      }
    }
  }
}

template <typename TypeParam>
class ReNetInitialisationTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  const vector<shared_ptr<Blob<Dtype> > >& SetUp(
      const LayerParameter& parameter) {
    bottom_.Reshape(1, 6, 4, 5);
    layer_ = LayerRegistry<Dtype>::CreateLayer(parameter);
    layer_->SetUp(vector<Blob<Dtype>*>(1, &bottom_),
        vector<Blob<Dtype>*>(1, &top_));
    return layer_->blobs();
  }

  /// Uniform over [-0.2, 0.2]: its bounds are kept and nearly reached.
  static void ExpectUniform(const Blob<Dtype>& blob) {
    const Dtype* data = blob.cpu_data();
    const Dtype low = *std::min_element(data, data + blob.count());
    const Dtype high = *std::max_element(data, data + blob.count());
    EXPECT_GE(low, -0.2 - 1e-6);
    EXPECT_LE(high, 0.2 + 1e-6);
    EXPECT_LT(low, -0.15);
    EXPECT_GT(high, 0.15);
  }
  static void ExpectAll(double value, int begin, int end,
      const Blob<Dtype>& blob) {
    for (int i = begin; i < end; ++i) {
      EXPECT_EQ(Dtype(value), blob.cpu_data()[i]) << "element " << i;
    }
  }

 private:
  shared_ptr<Layer<Dtype> > layer_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
};

TYPED_TEST_CASE(ReNetInitialisationTest, TestDtypesAndDevices);

TYPED_TEST(ReNetInitialisationTest, Default) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : ReNetUnits()) {
    SCOPED_TRACE(::testing::Message() << unit);
    const ReNetCase c = unit.Hidden(20);
    const vector<shared_ptr<Blob<Dtype> > >& blobs =
        this->SetUp(c.Parameter(TRAIN));
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      this->ExpectUniform(*blobs[first]);
      this->ExpectAll(0, 0, c.gates() * 20, *blobs[first + 1]);
      if (c.peephole) this->ExpectUniform(*blobs[first + 3]);
      if (c.type != "ReNetIRNN") {
        this->ExpectUniform(*blobs[first + 2]);
        continue;
      }
      for (int i = 0; i < 400; ++i) {
        EXPECT_EQ(Dtype(i % 21 == 0), blobs[first + 2]->cpu_data()[i]);
      }
    }
    // The scans have weights of their own.
    EXPECT_NE(blobs[0]->cpu_data()[0],
        blobs[c.scan_blobs()]->cpu_data()[0]);
  }
}

TYPED_TEST(ReNetInitialisationTest, ForgetBias) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter parameter = ReNetUnits()[0].Hidden(5).Parameter(TRAIN);
  parameter.mutable_renet_param()->set_forget_bias(2);
  FillerParameter* filler =
      parameter.mutable_renet_param()->mutable_bias_filler();
  filler->set_type("constant");
  filler->set_value(0.5);
  const vector<shared_ptr<Blob<Dtype> > >& blobs = this->SetUp(parameter);
  for (int scan = 0; scan < 2; ++scan) {
    const Blob<Dtype>& bias = *blobs[scan * 3 + 1];
    this->ExpectAll(0.5, 0, 5, bias);
    this->ExpectAll(2.5, 5, 10, bias);
    this->ExpectAll(0.5, 10, 20, bias);
  }
}

TYPED_TEST(ReNetInitialisationTest, WeightFiller) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : ReNetUnits()) {
    LayerParameter parameter = c.Parameter(TRAIN);
    FillerParameter* filler =
        parameter.mutable_renet_param()->mutable_weight_filler();
    filler->set_type("constant");
    filler->set_value(0.25);
    const vector<shared_ptr<Blob<Dtype> > >& blobs = this->SetUp(parameter);
    for (int i = 0; i < 2 * c.scan_blobs(); ++i) {
      const int kind = i % c.scan_blobs();
      if (kind == 1 || (kind == 2 && c.type == "ReNetIRNN")) continue;
      this->ExpectAll(0.25, 0, blobs[i]->count(), *blobs[i]);
    }
  }
}

}  // namespace caffe
