#include "caffe/onednn/affine_pass.hpp"

#include <vector>

#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {
namespace onednn {

void AffinePass(const std::vector<float>& scale, const std::vector<float>& shift,
    const Followers& followers, const Blob<float>& bottom, Blob<float>* top) {
  std::vector<float> a = scale, b = shift;
  if (followers.affine) {
    for (size_t c = 0; c < a.size(); ++c) {
      a[c] *= followers.scale[c];
      b[c] = followers.scale[c] * b[c] + followers.shift[c];
    }
  }
  const std::vector<int>& shape = bottom.shape();
  SyncedMemory* const map = bottom.data().get();
  const int width = WidthOf(map, shape);
  const dnnl::memory::desc lies = OrderOfWidth(shape, width);
  const float* const from = Values(Read(map, shape, lies, WORK_SOURCE));
  Writer writer(top->data().get(), shape, lies);
  ScaleAndShift(ChannelOrder(shape, width), from, a, b, followers.rectify,
      Values(writer.memory()));
  writer.Finish(followers.rectify);
}

}  // namespace onednn
}  // namespace caffe
