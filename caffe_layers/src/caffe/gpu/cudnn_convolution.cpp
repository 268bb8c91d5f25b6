#ifdef USE_CUDNN
#include "caffe/gpu/cudnn_convolution.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "caffe/gpu/bias_and_relu.hpp"
#include "caffe/gpu/cuda_check.hpp"
#include "caffe/gpu/gpu_precision.hpp"

namespace caffe {

namespace {

void* AllocateOnDevice(size_t size) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, size) == cudaSuccess) { return memory; }
  cudaGetLastError();  // a want of memory has another way out here
  return nullptr;
}

// Errors are left alone: a program that ends may have lost its GPU already.
void ReleaseOnDevice(void* memory) { cudaFree(memory); }

size_t MemoryOfDevice() {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return total;
}

// What all convolutions of a thread have in common on one device.
struct Context {
  Context()
      : planner(ConvolutionWorkspaceLimit(MemoryOfDevice()), AllocateOnDevice,
                ReleaseOnDevice) {
    CUDNN_CHECK(cudnnCreate(&handle));
  }
  ~Context() { cudnnDestroy(handle); }

  cudnnHandle_t handle;
  ConvolutionPlanner planner;
};

Context& CurrentContext() {
  thread_local std::map<int, std::unique_ptr<Context> > contexts;
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  std::unique_ptr<Context>& context = contexts[device];
  if (!context) { context.reset(new Context()); }
  return *context;
}

// cuDNN's three kinds of results have the same fields and share no type. A
// heuristic may list algorithms for another arithmetic than the descriptor's:
// how fast they are there says little, so they serve only where no other is
// listed. Which arithmetic they use here is still the descriptor's to say.
// workspace_of(algorithm, &bytes) asks what an algorithm takes with it.
template <typename Result, typename WorkspaceOf>
std::vector<ConvolutionCandidate> ToCandidates(
    const std::vector<Result>& results, cudnnMathType_t math,
    const WorkspaceOf& workspace_of) {
  std::vector<ConvolutionCandidate> same, other;
  for (const Result& result : results) {
    ConvolutionCandidate candidate = {
        static_cast<int>(result.algo), 0,
        result.determinism == CUDNN_DETERMINISTIC};
    if (result.status == CUDNN_STATUS_SUCCESS &&
        workspace_of(result.algo, &candidate.workspace) ==
            CUDNN_STATUS_SUCCESS) {
      (result.mathType == math ? same : other).push_back(candidate);
    }
  }
  return same.empty() ? other : same;
}

template <typename Dtype>
cudnnMathType_t MathType(bool allow_tf32) {
  // CUDNN_DEFAULT_MATH means TF32 for float32 on Ampere and later
  const bool is_float = cudnn::dataType<Dtype>::type == CUDNN_DATA_FLOAT;
  return is_float && !allow_tf32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH;
}

template <typename Dtype>
ConvolutionKey MakeKey(ConvolutionPass pass, bool allow_tf32,
                       const ConvolutionShape& shape) {
  const bool is_double = cudnn::dataType<Dtype>::type == CUDNN_DATA_DOUBLE;
  return ConvolutionKey{pass, is_double, allow_tf32, shape};
}

}  // namespace

template <typename Dtype>
CudnnConvolution<Dtype>::CudnnConvolution()
    : allow_tf32_(false), described_(false), x_(nullptr), y_(nullptr),
      bias_of_x_(nullptr), bias_of_y_(nullptr), w_(nullptr),
      convolution_(nullptr) {}

template <typename Dtype>
CudnnConvolution<Dtype>::~CudnnConvolution() {
  if (convolution_ == nullptr) { return; }
  for (cudnnTensorDescriptor_t tensor : {x_, y_, bias_of_x_, bias_of_y_}) {
    cudnnDestroyTensorDescriptor(tensor);
  }
  cudnnDestroyFilterDescriptor(w_);
  cudnnDestroyConvolutionDescriptor(convolution_);
}

template <typename Dtype>
void CudnnConvolution<Dtype>::Reshape(const std::string& who,
                                      const ConvolutionShape& shape) {
  who_ = who;
  described_ = described_ && shape.Numbers() == shape_.Numbers();
  shape_ = shape;
}

template <typename Dtype>
void CudnnConvolution<Dtype>::Describe() {
  if (described_) { return; }
  const ConvolutionShape& s = shape_;
  const cudnnDataType_t type = cudnn::dataType<Dtype>::type;
  if (convolution_ == nullptr) {
    for (cudnnTensorDescriptor_t* tensor :
         {&x_, &y_, &bias_of_x_, &bias_of_y_}) {
      CUDNN_CHECK_OF(who_, cudnnCreateTensorDescriptor(tensor));
    }
    CUDNN_CHECK_OF(who_, cudnnCreateFilterDescriptor(&w_));
    CUDNN_CHECK_OF(who_, cudnnCreateConvolutionDescriptor(&convolution_));
  }
  const cudnnTensorFormat_t format = CUDNN_TENSOR_NCHW;
  CUDNN_CHECK_OF(who_, cudnnSetTensor4dDescriptor(x_, format, type, s.num,
      s.in_channels, s.in_height, s.in_width));
  CUDNN_CHECK_OF(who_, cudnnSetTensor4dDescriptor(y_, format, type, s.num,
      s.out_channels, s.out_height, s.out_width));
  CUDNN_CHECK_OF(who_, cudnnSetTensor4dDescriptor(bias_of_x_, format, type, 1,
      s.in_channels, 1, 1));
  CUDNN_CHECK_OF(who_, cudnnSetTensor4dDescriptor(bias_of_y_, format, type, 1,
      s.out_channels, 1, 1));
  CUDNN_CHECK_OF(who_, cudnnSetFilter4dDescriptor(w_, type, format,
      s.out_channels, s.in_channels / s.group, s.kernel_height,
      s.kernel_width));
  CUDNN_CHECK_OF(who_, cudnnSetConvolution2dDescriptor(convolution_,
      s.pad_height, s.pad_width, s.stride_height, s.stride_width,
      s.dilation_height, s.dilation_width, CUDNN_CROSS_CORRELATION, type));
  CUDNN_CHECK_OF(who_, cudnnSetConvolutionGroupCount(convolution_, s.group));
  allow_tf32_ = AllowTF32();
  CUDNN_CHECK_OF(who_, cudnnSetConvolutionMathType(convolution_,
      MathType<Dtype>(allow_tf32_)));
  described_ = true;
}

template <typename Dtype>
void CudnnConvolution<Dtype>::Forward(const Dtype* x, const Dtype* w,
                                      Dtype* y) {
  Describe();
  Context& context = CurrentContext();
  const ConvolutionCandidate plan = context.planner.Plan(
      MakeKey<Dtype>(ConvolutionPass::FORWARD, allow_tf32_, shape_), [&] {
        int count = 0;
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionForwardAlgorithmMaxCount(
            context.handle, &count));
        std::vector<cudnnConvolutionFwdAlgoPerf_t> results(count);
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionForwardAlgorithm_v7(
            context.handle, x_, w_, convolution_, y_, count, &count,
            results.data()));
        results.resize(count);
        return ToCandidates(results, MathType<Dtype>(allow_tf32_),
            [&](cudnnConvolutionFwdAlgo_t algorithm, size_t* bytes) {
              return cudnnGetConvolutionForwardWorkspaceSize(context.handle,
                  x_, w_, convolution_, y_, algorithm, bytes);
            });
      });
  CUDNN_CHECK_OF(who_, cudnnConvolutionForward(context.handle,
      cudnn::dataType<Dtype>::one, x_, x, w_, w, convolution_,
      static_cast<cudnnConvolutionFwdAlgo_t>(plan.algorithm),
      context.planner.workspace(), plan.workspace,
      cudnn::dataType<Dtype>::zero, y_, y));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::BackwardData(const Dtype* y, const Dtype* w,
                                           Dtype* x) {
  Describe();
  Context& context = CurrentContext();
  const ConvolutionCandidate plan = context.planner.Plan(
      MakeKey<Dtype>(ConvolutionPass::BACKWARD_DATA, allow_tf32_, shape_), [&] {
        int count = 0;
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionBackwardDataAlgorithmMaxCount(
            context.handle, &count));
        std::vector<cudnnConvolutionBwdDataAlgoPerf_t> results(count);
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionBackwardDataAlgorithm_v7(
            context.handle, w_, y_, convolution_, x_, count, &count,
            results.data()));
        results.resize(count);
        return ToCandidates(results, MathType<Dtype>(allow_tf32_),
            [&](cudnnConvolutionBwdDataAlgo_t algorithm, size_t* bytes) {
              return cudnnGetConvolutionBackwardDataWorkspaceSize(
                  context.handle, w_, y_, convolution_, x_, algorithm, bytes);
            });
      });
  CUDNN_CHECK_OF(who_, cudnnConvolutionBackwardData(context.handle,
      cudnn::dataType<Dtype>::one, w_, w, y_, y, convolution_,
      static_cast<cudnnConvolutionBwdDataAlgo_t>(plan.algorithm),
      context.planner.workspace(), plan.workspace,
      cudnn::dataType<Dtype>::zero, x_, x));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::BackwardFilter(const Dtype* x, const Dtype* y,
                                             Dtype* w) {
  Describe();
  Context& context = CurrentContext();
  const ConvolutionCandidate plan = context.planner.Plan(
      MakeKey<Dtype>(ConvolutionPass::BACKWARD_FILTER, allow_tf32_, shape_),
      [&] {
        int count = 0;
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(
            context.handle, &count));
        std::vector<cudnnConvolutionBwdFilterAlgoPerf_t> results(count);
        CUDNN_CHECK_OF(who_, cudnnGetConvolutionBackwardFilterAlgorithm_v7(
            context.handle, x_, y_, convolution_, w_, count, &count,
            results.data()));
        results.resize(count);
        return ToCandidates(results, MathType<Dtype>(allow_tf32_),
            [&](cudnnConvolutionBwdFilterAlgo_t algorithm, size_t* bytes) {
              return cudnnGetConvolutionBackwardFilterWorkspaceSize(
                  context.handle, x_, y_, convolution_, w_, algorithm, bytes);
            });
      });
  CUDNN_CHECK_OF(who_, cudnnConvolutionBackwardFilter(context.handle,
      cudnn::dataType<Dtype>::one, x_, x, y_, y, convolution_,
      static_cast<cudnnConvolutionBwdFilterAlgo_t>(plan.algorithm),
      context.planner.workspace(), plan.workspace,
      cudnn::dataType<Dtype>::one, w_, w));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::AddBias(const Dtype* b, Dtype* y) {
  Describe();
  CUDNN_CHECK_OF(who_, cudnnAddTensor(CurrentContext().handle,
      cudnn::dataType<Dtype>::one, bias_of_y_, b, cudnn::dataType<Dtype>::one,
      y_, y));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::AddBiasAndRectify(const Dtype* b, Dtype* y) {
  caffe::AddBiasAndRectify(who_, shape_.num * shape_.out_channels,
      shape_.out_channels, shape_.out_height * shape_.out_width, b, y);
}

template <typename Dtype>
void CudnnConvolution<Dtype>::AddBiasAndRectifyX(const Dtype* b, Dtype* x) {
  caffe::AddBiasAndRectify(who_, shape_.num * shape_.in_channels,
      shape_.in_channels, shape_.in_height * shape_.in_width, b, x);
}

template <typename Dtype>
void CudnnConvolution<Dtype>::BackwardBias(const Dtype* y, Dtype* b) {
  Describe();
  CUDNN_CHECK_OF(who_, cudnnConvolutionBackwardBias(CurrentContext().handle,
      cudnn::dataType<Dtype>::one, y_, y, cudnn::dataType<Dtype>::one,
      bias_of_y_, b));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::AddBiasToX(const Dtype* b, Dtype* x) {
  Describe();
  CUDNN_CHECK_OF(who_, cudnnAddTensor(CurrentContext().handle,
      cudnn::dataType<Dtype>::one, bias_of_x_, b, cudnn::dataType<Dtype>::one,
      x_, x));
}

template <typename Dtype>
void CudnnConvolution<Dtype>::BackwardBiasOfX(const Dtype* x, Dtype* b) {
  Describe();
  CUDNN_CHECK_OF(who_, cudnnConvolutionBackwardBias(CurrentContext().handle,
      cudnn::dataType<Dtype>::one, x_, x, cudnn::dataType<Dtype>::one,
      bias_of_x_, b));
}

template class CudnnConvolution<float>;
template class CudnnConvolution<double>;

}  // namespace caffe
#endif  // USE_CUDNN
