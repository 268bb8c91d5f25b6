#include <algorithm>
#include <climits>
#include <cstdlib>
#include <string>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/unpooling_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const int WIDEST = 32767;  // of a window: its area is an int

const FieldDescriptor* Field(const Message& param, const string& name) {
  return param.GetDescriptor()->FindFieldByName(name);
}

bool Has(const Message& param, const string& name) {
  return param.GetReflection()->HasField(param, Field(param, name));
}

int Get(const Message& param, const string& name) {
  return param.GetReflection()->GetUInt32(param, Field(param, name));
}

}  // namespace

template <typename Dtype>
bool UnpoolingLayer<Dtype>::GetSides(const Message& param, const char* both,
    const string& one, int sides[2]) const {
  const string names[] = { one + "_h", one + "_w" };
  const bool has_both = both != NULL && Has(param, both);
  const bool has_each = Has(param, names[0]);
  CHECK(has_each == Has(param, names[1]) && !(has_both && has_each))
      << Name() << ": give " << names[0] << " and " << names[1] << " together"
      << (both == NULL ? "" : string(", or ") + both + " for both");
  if (!has_both && !has_each) { return false; }
  for (int i = 0; i < 2; ++i) {
    sides[i] = Get(param, has_both ? string(both) : names[i]);
  }
  return true;
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& /*bottom*/,
    const vector<Blob<Dtype>*>& /*top*/) {
  const UnpoolingParameter& param = this->layer_param_.unpooling_param();
  method_ = param.unpool();
  int kernel[2], stride[2] = { 1, 1 }, pad[2] = { 0, 0 };
  CHECK(GetSides(param, "kernel_size", "kernel", kernel) && kernel[0] > 0 &&
      kernel[1] > 0) << Name() << ": unpooling_param needs kernel_size, 1 or "
      << "more: that of the pooling";
  GetSides(param, "stride", "stride", stride);
  CHECK(stride[0] > 0 && stride[1] > 0)
      << Name() << ": unpooling_param's stride must be 1 or more";
  GetSides(param, "pad", "pad", pad);
  CHECK(kernel[0] <= WIDEST && kernel[1] <= WIDEST && stride[0] <= INT_MAX / 2 &&
      stride[1] <= INT_MAX / 2) << Name() << ": unpooling_param's kernel_size or "
      << "stride is too large";
  CHECK(pad[0] >= 0 && pad[0] < kernel[0] && pad[1] >= 0 && pad[1] < kernel[1])
      << Name() << ": unpooling_param's pad must be less than its kernel_size";
  size_[0] = size_[1] = 0;
  CHECK(!GetSides(param, "unpool_size", "unpool", size_) ||
      (size_[0] > 0 && size_[1] > 0)) << Name()
      << ": unpooling_param's unpool_size must be 1 or more: that of the map "
      << "that the pooling reads";
  const PoolingAxis rows = { 0, 0, kernel[0], stride[0], pad[0] };
  const PoolingAxis columns = { 0, 0, kernel[1], stride[1], pad[1] };
  rows_ = rows;
  columns_ = columns;
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::ChooseSizes(int* height, int* width) const {
  const PoolingAxis* const axes[] = { &rows_, &columns_ };
  int* const sizes[] = { height, width };
  for (int i = 0; i < 2; ++i) {
    const int64_t reach = static_cast<int64_t>(axes[i]->windows - 1) *
        axes[i]->stride + axes[i]->kernel - 2 * axes[i]->pad;
    CHECK_LE(reach, INT_MAX) << Name() << ": a stride or scale of "
        << axes[i]->stride << " is too large for " << axes[i]->windows
        << " rows or columns";
    *sizes[i] = size_[i] > 0 ? size_[i] : reach;
  }
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK(bottom[0]->num_axes() == 4 && bottom[0]->shape(2) > 0 &&
      bottom[0]->shape(3) > 0) << Name() << ": bottom 0 has shape "
      << bottom[0]->shape_string() << "; expected N x C x H x W with H and W "
      << "1 or more";
  CHECK(bottom.size() == 1 || bottom[1]->shape() == bottom[0]->shape())
      << Name() << ": bottom 1 is the mask, the second top of a Pooling layer, "
      << "and must have the shape of bottom 0, " << bottom[0]->shape_string()
      << ", not " << bottom[1]->shape_string();
  rows_.windows = bottom[0]->shape(2);
  columns_.windows = bottom[0]->shape(3);
  ChooseSizes(&rows_.size, &columns_.size);
  CHECK(rows_.size > 0 && columns_.size > 0)
      << Name() << ": nothing is left of a result of " << rows_.size << " x "
      << columns_.size << "; give a smaller pad, or the size";
  if (bottom.size() == 2 && method_ == UnpoolingParameter::MAX &&
      size_[0] > 0 && KnowsPooling()) {
    CheckWindows();
  }
  top[0]->Reshape(bottom[0]->shape(0), bottom[0]->shape(1), rows_.size,
      columns_.size);
}

template <typename Dtype>
string UnpoolingLayer<Dtype>::SizeFields() const {
  return "unpool_size (or unpool_h and unpool_w)";
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::CheckWindows() const {
  // Other paddings and kernels of a pooling with this stride may differ by 2.
  const int rows = WindowCountOf(rows_), columns = WindowCountOf(columns_);
  CHECK(std::abs(rows - rows_.windows) <= 2 &&
      std::abs(columns - columns_.windows) <= 2)
      << Name() << ": the mask (bottom 1) is of " << rows_.windows << " x "
      << columns_.windows << " windows, but a pooling of a map of "
      << rows_.size << " x " << columns_.size << " has " << rows << " x "
      << columns << "; " << SizeFields() << " are the height and width of the "
      << "map that the pooling reads, and go with one size of image";
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::CheckMask(int bad,
    const vector<Blob<Dtype>*>& bottom) const {
  if (bad == 0) { return; }
  const int window = bad - 1;
  const int map = window / (rows_.windows * columns_.windows);
  const int channels = bottom[1]->shape(1);
  LOG(FATAL) << Name() << ": the mask (bottom 1) is "
      << bottom[1]->cpu_data()[window] << " in image " << map / channels
      << " of the batch, channel " << map % channels << ", row "
      << window / columns_.windows % rows_.windows << ", column "
      << window % columns_.windows << ", which is no place of a map of "
      << rows_.size << " x " << columns_.size << " (0 to "
      << rows_.size * columns_.size - 1 << "); give the second top of the "
      << "Pooling layer, and by " << SizeFields() << " the height and width of the "
      << "map that it reads";
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const int maps = bottom[0]->shape(0) * bottom[0]->shape(1);
  const int windows = rows_.windows * columns_.windows;
  const int area = rows_.size * columns_.size;
  const Dtype* const bottom_data = bottom[0]->cpu_data();
  const Dtype* const mask = bottom.size() > 1 ? bottom[1]->cpu_data() : NULL;
  Dtype* const top_data = top[0]->mutable_cpu_data();
  const bool average = method_ == UnpoolingParameter::AVE;
  int bad = 0;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) reduction(max : bad)
#endif
  for (int map = 0; map < maps; ++map) {
    Dtype* const output = top_data + map * area;
    std::fill(output, output + area, Dtype(0));
    if (method_ != UnpoolingParameter::MAX) {
      for (int window = 0; window < windows; ++window) {
        SpreadWindow(rows_, columns_, average,
            bottom_data[map * windows + window], window, output);
      }
      continue;
    }
    for (int i = map * windows; i < (map + 1) * windows; ++i) {
      const int place = UnpooledPlace(rows_, columns_, mask, i);
      if (place < 0) {
        bad = std::max(bad, i + 1);
      } else {
        output[place] = bottom_data[i];
      }
    }
  }
  CheckMask(bad, bottom);
}

template <typename Dtype>
void UnpoolingLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const int maps = bottom[0]->shape(0) * bottom[0]->shape(1);
  const int windows = rows_.windows * columns_.windows;
  const int area = rows_.size * columns_.size;
  const Dtype* const top_diff = top[0]->cpu_diff();
  const Dtype* const mask = bottom.size() > 1 ? bottom[1]->cpu_data() : NULL;
  Dtype* const bottom_diff = bottom[0]->mutable_cpu_diff();
  const bool average = method_ == UnpoolingParameter::AVE;
  int bad = 0;
#ifdef _OPENMP
#pragma omp parallel reduction(max : bad)
#endif
  {
    // The last window that goes to a place; others are never asked for.
    vector<int> winners(method_ == UnpoolingParameter::MAX ? area : 0);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
    for (int map = 0; map < maps; ++map) {
      const Dtype* const output_diff = top_diff + map * area;
      Dtype* const input_diff = bottom_diff + map * windows;
      if (method_ != UnpoolingParameter::MAX) {
        for (int window = 0; window < windows; ++window) {
          input_diff[window] = CollectValue(rows_, columns_, average,
              output_diff, window);
        }
        continue;
      }
      for (int pass = 0; pass < 2; ++pass) {
        for (int i = map * windows; i < (map + 1) * windows; ++i) {
          const int place = UnpooledPlace(rows_, columns_, mask, i);
          if (place < 0) {
            bad = std::max(bad, i + 1);
          } else if (pass == 0) {
            winners[place] = i;
          } else {
            bottom_diff[i] = winners[place] == i ? output_diff[place] :
                Dtype(0);
          }
        }
      }
    }
  }
  CheckMask(bad, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(UnpoolingLayer);
#endif

INSTANTIATE_CLASS(UnpoolingLayer);
REGISTER_LAYER_CLASS(Unpooling);

}  // namespace caffe
