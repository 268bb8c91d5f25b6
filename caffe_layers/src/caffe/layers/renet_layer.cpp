#include "caffe/layers/renet_layer.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <string>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/gpu/gpu_precision.hpp"
#include "caffe/memory/work_areas.hpp"
#include "caffe/util/bfloat16.hpp"

namespace caffe {

template <typename Dtype>
void ReNetLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /* top */) {
  const ReNetParameter& param = this->layer_param_.renet_param();
  const char* name = this->layer_param_.name().c_str();
  CHECK_GT(param.num_output(), 0) << this->type() << " layer \"" << name
      << "\": renet_param.num_output, the hidden units of one scan, must be"
      << " given and positive.";
  CHECK_GT(param.patch_height(), 0) << this->type() << " layer \"" << name
      << "\": renet_param.patch_height must be at least 1.";
  CHECK_GT(param.patch_width(), 0) << this->type() << " layer \"" << name
      << "\": renet_param.patch_width must be at least 1.";
  if (unit_ != RENET_LSTM) {
    CHECK(!param.peephole()) << this->type() << " layer \"" << name
        << "\": renet_param.peephole is for ReNetLSTM alone.";
    CHECK(!param.has_forget_bias()) << this->type() << " layer \"" << name
        << "\": renet_param.forget_bias is for ReNetLSTM alone; this unit has"
        << " no forget gate.";
    CHECK_EQ(param.output(), ReNetParameter::HIDDEN) << this->type()
        << " layer \"" << name << "\": renet_param.output: CELL is for"
        << " ReNetLSTM alone; this unit has no cell.";
  }
  CHECK(std::isfinite(param.forget_bias())) << this->type() << " layer \""
      << name << "\": renet_param.forget_bias must be a finite number, not "
      << param.forget_bias() << ".";
  CHECK_EQ(bottom[0]->num_axes(), 4) << this->type() << " layer \"" << name
      << "\": the bottom must be N x C x H x W, but its shape is "
      << bottom[0]->shape_string();
  channels_ = bottom[0]->channels();
  // a real number, which no field makes overflow
  const double values = std::max(2. * Gates() * param.num_output(),
      1. * channels_ * param.patch_height() * param.patch_width());
  CHECK_LE(values, INT_MAX) << this->type() << " layer \"" << name
      << "\": renet_param.num_output " << param.num_output() << " or the patches"
      << " of " << param.patch_height() << " x " << param.patch_width()
      << " are too large.";
  hidden_ = param.num_output();
  inputs_ = channels_ * param.patch_height() * param.patch_width();
  peephole_ = param.peephole();
  const int units = Gates() * hidden_;
  const vector<int> shapes[] =
      { { units, inputs_ }, { units }, { units, hidden_ }, { 3, hidden_ } };
  const bool fresh = this->blobs_.empty();
  const size_t count = 2 * ScanBlobs();
  if (fresh) { this->blobs_.resize(count); }
  CHECK_EQ(count, this->blobs_.size()) << this->type() << " layer \"" << name
      << "\": blobs has another number of weights than this unit.";
  for (size_t i = 0; i < count; ++i) {
    const vector<int>& shape = shapes[i % ScanBlobs()];
    if (fresh) { this->blobs_[i].reset(new Blob<Dtype>(shape)); }
    CHECK(this->blobs_[i]->shape() == shape) << this->type() << " layer \""
        << name << "\": blobs " << i << " is "
        << this->blobs_[i]->shape_string() << " and with these fields would be "
        << Blob<Dtype>(shape).shape_string();
  }
  for (int scan = 0; fresh && scan < 2; ++scan) { FillParameters(scan); }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
FillerParameter ReNetLayer<Dtype>::WeightFiller() const {
  const ReNetParameter& param = this->layer_param_.renet_param();
  if (param.has_weight_filler()) {
    return param.weight_filler();
  }
  FillerParameter uniform;
  uniform.set_type("uniform");
  uniform.set_min(-0.2f);
  uniform.set_max(0.2f);
  return uniform;
}

template <typename Dtype>
void ReNetLayer<Dtype>::FillParameters(int scan) {
  shared_ptr<Filler<Dtype> > weights(GetFiller<Dtype>(WeightFiller()));
  weights->Fill(ScanBlob(scan, 0));
  weights->Fill(ScanBlob(scan, 2));
  shared_ptr<Filler<Dtype> > bias(GetFiller<Dtype>(
      this->layer_param_.renet_param().bias_filler()));
  bias->Fill(ScanBlob(scan, 1));
}

template <typename Dtype>
void ReNetLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const ReNetParameter& param = this->layer_param_.renet_param();
  CHECK_EQ(bottom[0]->num_axes(), 4) << this->type() << " layer \""
      << this->layer_param_.name() << "\": the bottom must be N x C x H x W,"
      << " but its shape is " << bottom[0]->shape_string();
  CHECK_EQ(bottom[0]->channels(), channels_) << this->type() << " layer \""
      << this->layer_param_.name() << "\": the weights are for " << channels_
      << " channels, but the bottom's shape is "
      << bottom[0]->shape_string();
  CHECK_GT(bottom[0]->count(), 0) << this->type() << " layer \""
      << this->layer_param_.name() << "\": the bottom is empty: "
      << bottom[0]->shape_string();
  const int patch_height = param.patch_height();
  const int patch_width = param.patch_width();
  top[0]->Reshape(bottom[0]->num(), 2 * hidden_,
      (bottom[0]->height() + patch_height - 1) / patch_height,
      (bottom[0]->width() + patch_width - 1) / patch_width);
  history_engine_ = NULL;
}

template <typename Dtype>
void ReNetLayer<Dtype>::Grow(size_t count, Blob<Dtype>* blob) {
  CHECK_LE(count, static_cast<size_t>(INT_MAX)) << "A ReNet layer's work area "
      << "of " << count << " elements is more than a blob may hold: use a "
      << "smaller batch or crop.";
  if (static_cast<size_t>(blob->count()) < count) {
    blob->Reshape(vector<int>(1, static_cast<int>(count)));
  }
}

template <typename Dtype>
Dtype* ReNetLayer<Dtype>::Workspace(Place place, size_t count) {
  if (place == ON_CPU) {
    return reinterpret_cast<Dtype*>(Work(WORK_SCRATCH, count * sizeof(Dtype)));
  }
  Grow(count, &workspace_);
  return MutableData(place, &workspace_);
}

template <typename Dtype>
ReNetEngine<Dtype>* ReNetLayer<Dtype>::Engine(Place place) {
  shared_ptr<ReNetEngine<Dtype> >& engine = engines_[place];
  if (!engine) {
    engine = place == ON_CPU ? NewReNetCpuEngine<Dtype>() :
        NewReNetGpuEngine<Dtype>(string(this->type()) + " layer \"" +
            this->layer_param_.name() + "\"");
  }
  return engine.get();
}

template <typename Dtype>
void ReNetLayer<Dtype>::SetSweep(Place place, const Blob<Dtype>& bottom) {
  const ReNetParameter& param = this->layer_param_.renet_param();
  sweep_.unit = unit_;
  sweep_.vertical = param.direction() == ReNetParameter::VERTICAL;
  sweep_.patch_height = param.patch_height();
  sweep_.patch_width = param.patch_width();
  sweep_.num = bottom.num();
  sweep_.channels = channels_;
  sweep_.height = bottom.height();
  sweep_.width = bottom.width();
  sweep_.hidden = hidden_;
  sweep_.cell_output = param.output() == ReNetParameter::CELL;
  sweep_.precision = RENET_FLOAT32;
  if (param.has_precision()) {
    switch (param.precision()) {
    case ReNetParameter::FLOAT32: break;
    case ReNetParameter::TF32: sweep_.precision = RENET_TF32; break;
    case ReNetParameter::BF16: sweep_.precision = RENET_BF16; break;
    }
  } else if (place == ON_CPU && sizeof(Dtype) == sizeof(float) && AllowBfloat16()) {
    sweep_.precision = RENET_BF16;
  } else if (AllowTF32()) {
    sweep_.precision = RENET_TF32;
  }
  sweep_.bottom = Data(place, bottom);
  for (int scan = 0; scan < 2; ++scan) {
    sweep_.input_weights[scan] = Data(place, *ScanBlob(scan, 0));
    sweep_.bias[scan] = Data(place, *ScanBlob(scan, 1));
    sweep_.recurrent_weights[scan] = Data(place, *ScanBlob(scan, 2));
    sweep_.peephole[scan] =
        peephole_ ? Data(place, *ScanBlob(scan, 3)) : NULL;
  }
}

template <typename Dtype>
void ReNetLayer<Dtype>::Sweep(Place place, const Blob<Dtype>& bottom,
    Blob<Dtype>* top, bool keep_history) {
  SetSweep(place, bottom);
  ReNetEngine<Dtype>* const engine = Engine(place);
  engine->Plan(&sweep_);  // which Backward keeps to
  sweep_.history = NULL;
  if (keep_history) {
    Grow(engine->HistorySize(sweep_), &history_);
    sweep_.history = MutableData(place, &history_);
  }
  sweep_.workspace = Workspace(place, engine->WorkspaceSize(sweep_, false));
  sweep_.top = top ? MutableData(place, top) : NULL;
  engine->Forward(sweep_);
  history_engine_ = keep_history ? engine : NULL;
}

template <typename Dtype>
void ReNetLayer<Dtype>::SweepForward(Place place,
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  Sweep(place, *bottom[0], top[0], this->phase_ == TRAIN);
}

template <typename Dtype>
void ReNetLayer<Dtype>::SweepBackward(Place place,
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  bool wanted = propagate_down[0];
  for (size_t i = 0; i < this->blobs_.size(); ++i) {
    wanted = wanted || this->param_propagate_down_[i];
  }
  if (!wanted) {
    return;
  }
  ReNetEngine<Dtype>* const engine = Engine(place);
  if (history_engine_ != engine) {
    // The top stays as it is: a layer in place may have changed it since.
    Sweep(place, *bottom[0], NULL, true);
  }
  SetSweep(place, *bottom[0]);
  sweep_.history = MutableData(place, &history_);
  sweep_.workspace = Workspace(place, engine->WorkspaceSize(sweep_, true));
  sweep_.top_diff = Diff(place, *top[0]);
  sweep_.bottom_diff =
      propagate_down[0] ? MutableDiff(place, bottom[0]) : NULL;
  for (int scan = 0; scan < 2; ++scan) {
    Dtype* diffs[4];
    for (int i = 0; i < 4; ++i) {
      diffs[i] = i < ScanBlobs() &&
          this->param_propagate_down_[scan * ScanBlobs() + i] ?
          MutableDiff(place, ScanBlob(scan, i)) : NULL;
    }
    sweep_.input_weights_diff[scan] = diffs[0];
    sweep_.bias_diff[scan] = diffs[1];
    sweep_.recurrent_weights_diff[scan] = diffs[2];
    sweep_.peephole_diff[scan] = diffs[3];
  }
  engine->Backward(sweep_);
}

template <typename Dtype>
void ReNetLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  SweepForward(ON_CPU, bottom, top);
}

template <typename Dtype>
void ReNetLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  SweepBackward(ON_CPU, top, propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(ReNetLayer);

template <typename Dtype>
shared_ptr<ReNetEngine<Dtype> > NewReNetGpuEngine(const string& /* who */) {
  NO_GPU;
  return shared_ptr<ReNetEngine<Dtype> >();
}
#endif

INSTANTIATE_CLASS(ReNetLayer);

}  // namespace caffe
