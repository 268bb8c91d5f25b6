#ifndef CAFFE_RENET_SWEEP_HPP_
#define CAFFE_RENET_SWEEP_HPP_

#include <cstddef>
#include <string>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/util/instruction_set.hpp"

namespace caffe {

/// The recurrent units that a ReNet layer can sweep with.
enum ReNetUnit { RENET_LSTM = 0, RENET_GRU = 1, RENET_IRNN = 2 };

/**
 * @brief All that one sweep over a map (both scans) reads and writes, in main
 *        memory or all of it in a GPU's.
 *
 * A map of N x C x H x W is cut into patches of s x t; sweeping vertically,
 * the patch rows are the T steps and the patch columns of all images the
 * lines; horizontally the other way round. Index 0 of a pair is the forward
 * scan (from the top or the left), 1 the backward scan. Rows of weights are in
 * the order of the gates (see ReNetLSTMLayer, ReNetGRULayer, ReNetIRNNLayer).
 * A NULL gradient is not computed; parameter gradients are added to.
 */
template <typename Dtype>
struct ReNetSweep {
  ReNetUnit unit;
  bool vertical;
  int patch_height;  // s
  int patch_width;   // t
  int num;           // N
  int channels;      // C
  int height;        // H
  int width;         // W
  int hidden;        // d
  bool cell_output;  // LSTM: the top carries c instead of h
  ReNetPrecision precision;  // of products; the CPU knows no TF32

  const Dtype* input_weights[2];      // G*d x P, P = C * s * t
  const Dtype* bias[2];               // G*d
  const Dtype* recurrent_weights[2];  // G*d x d
  const Dtype* peephole[2];           // 3 x d, or NULL

  const Dtype* bottom;  // N x C x H x W
  Dtype* top;           // N x 2d x ceil(H/s) x ceil(W/t); NULL: not written
  Dtype* history;       // what Backward reads again; NULL: not kept
  Dtype* workspace;

  const Dtype* top_diff;
  Dtype* bottom_diff;
  Dtype* input_weights_diff[2];
  Dtype* bias_diff[2];
  Dtype* recurrent_weights_diff[2];
  Dtype* peephole_diff[2];

  /// How the CPU's lines are cut into tiles; fixed by ReNetKernels::plan for a
  /// shape and a number of threads, and equal in Forward and Backward.
  int tiles;
  int threads;
};

/**
 * @brief The sweeps compiled for one instruction set.
 *
 * A tile of lines is carried by one thread through all steps: nothing of one
 * line depends on another, so there is neither a barrier nor a call between
 * steps, and the products with W_x and W_h, the gates and the cell of a step
 * are one pass over data that stays in the core's own cache. In a TEST net no
 * gate is ever written to memory.
 */
template <typename Dtype>
struct ReNetKernels {
  const char* name;
  /// Sets tiles and threads.
  void (*plan)(ReNetSweep<Dtype>* sweep);
  /// Sizes in elements.
  size_t (*history_size)(const ReNetSweep<Dtype>& sweep);
  size_t (*workspace_size)(const ReNetSweep<Dtype>& sweep, bool backward);
  void (*forward)(const ReNetSweep<Dtype>& sweep);
  void (*backward)(const ReNetSweep<Dtype>& sweep);
};

/// The sweeps that this processor runs, best first.
template <typename Dtype>
std::vector<ReNetKernels<Dtype> > AvailableReNetKernels();

/// The best sweeps that this processor runs. The environment variable
/// RENET_INSTRUCTION_SET (see ChosenInstructionSet) asks for lesser ones.
template <typename Dtype>
const ReNetKernels<Dtype>& GetReNetKernels();

/// The sweeps whose products round their factors to bfloat16 that `best` has,
/// best first: none in double precision, nor without AVX512_BF16.
template <typename Dtype>
std::vector<ReNetKernels<Dtype> > AvailableReNetBfloat16Kernels(
    InstructionSet best);

/// What a layer asks of the CPU or of a GPU, see ReNetKernels.
template <typename Dtype>
class ReNetEngine {
 public:
  virtual ~ReNetEngine() {}
  virtual void Plan(ReNetSweep<Dtype>* sweep) const = 0;
  /// Sizes in elements; the forward pass needs more workspace where
  /// sweep.history is NULL.
  virtual size_t HistorySize(const ReNetSweep<Dtype>& sweep) const = 0;
  virtual size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep,
      bool backward) const = 0;
  virtual void Forward(const ReNetSweep<Dtype>& sweep) = 0;
  virtual void Backward(const ReNetSweep<Dtype>& sweep) = 0;
};

template <typename Dtype>
shared_ptr<ReNetEngine<Dtype> > NewReNetCpuEngine();

/// On this thread's current GPU; who: what messages call the layer.
template <typename Dtype>
shared_ptr<ReNetEngine<Dtype> > NewReNetGpuEngine(const std::string& who);

}  // namespace caffe

#endif  // CAFFE_RENET_SWEEP_HPP_
