#ifndef CAFFE_SEGMENTATION_DATA_LAYER_HPP_
#define CAFFE_SEGMENTATION_DATA_LAYER_HPP_

#ifdef USE_OPENCV
#ifdef USE_LMDB

#include <cstdint>
#include <memory>
#include <opencv2/core/core.hpp>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/data/augmentation.hpp"
#include "caffe/data/prefetch_pool.hpp"
#include "caffe/data/sample_order.hpp"
#include "caffe/data/sample_source.hpp"
#include "caffe/data/staged_buffer.hpp"

namespace caffe {

/**
 * @brief Feeds images and their label maps from prepared splits, with random
 *        crops and flips that image and label share.
 *
 * Tops:
 *  - data  @f$ (N \times 3 \times H \times W) @f$: (pixel - mean_value) * scale,
 *    channels B, G, R, pixels 0..255.
 *  - label @f$ (N \times 1 \times H \times W) @f$, may be left out: the class of
 *    each pixel; the value 255, which prepared splits give to pixels without a
 *    class, comes out as ignore_label.
 *
 * With segmentation_data_param
 *  - source: folders of splits, each with images.lmdb and labels.lmdb (Datums
 *    with encoded images under the same keys; labels 8 bits, one channel). All
 *    of them are read as one data set, in the order given.
 *  - crop_height, crop_width: H and W. An image that is smaller is first
 *    enlarged by reflection at the bottom and the right (the border pixel is not
 *    repeated; again and again where one reflection does not suffice), its label
 *    alike. Both 0: whole images, N = 1, and the tops change their size from one
 *    forward pass to the next.
 *  - padding: IGNORED takes the mean and ignore_label in place of the reflection.
 *  - mirror: flips every second sample, drawn at random.
 *  - shuffle: a new order each epoch.
 *  - scale_min, scale_max, aspect, rotation, brightness, contrast, saturation,
 *    hue, blur, cutout: augmentation, see Augmentation.
 *
 * Which item, crop, flip and augmentation come next is a pure function of (seed,
 * sample number), see SampleOrder. Forward pass f gives the samples
 * @f$ (f R + r) N + i, \; i = 0 .. N - 1 @f$, where rank r of R data-parallel
 * solvers reads its own share in the TRAIN phase; so it does in the TEST phase
 * where the ranks are processes, and else it reads all (r = 0, R = 1). ResumeAt sets f, so a run that goes on from a
 * snapshot sees what it would have seen without the interruption.
 *
 * Decoding and augmentation happen in prefetch_threads threads, at most `prefetch` batches
 * ahead. They start at the first forward pass. In GPU mode they also copy each
 * batch to the device, while the device works on others (see StagedBuffer), and
 * the forward pass only copies it into the tops there.
 */
template <typename Dtype>
class SegmentationDataLayer : public Layer<Dtype> {
 public:
  explicit SegmentationDataLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  // There are no bottoms to follow: LayerSetUp and Forward shape the tops.
  virtual void Reshape(const vector<Blob<Dtype>*>& /* bottom */,
      const vector<Blob<Dtype>*>& /* top */) {}

  virtual inline const char* type() const { return "SegmentationData"; }
  virtual inline int ExactNumBottomBlobs() const { return 0; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }

  /// The next forward pass is number forward_passes (0 is the first).
  virtual void ResumeAt(int forward_passes) override;
  /// A solver's seed counts where the fields have none of their own.
  virtual void SetSeed(uint64_t seed) override;

 protected:
  /// What the fields ask for, whatever their names are.
  struct Settings {
    Settings() : channels(3), fixed_size(false), pads(false), middle(false),
        solver_seed(false), rand_skip(0) {}

    SegmentationDataParameter param;  // all that it has words for
    std::shared_ptr<const SampleSource> source;
    int channels;      // of the images
    bool fixed_size;   // without a crop all images have the first one's size
    bool pads;         // beyond an image lie the mean and ignore_label
    bool middle;       // a crop is the middle one
    bool solver_seed;  // the seed is the solver's, where it has one
    unsigned int rand_skip;  // the first sample is one of so many
  };

  /// Reads and checks the layer's own fields; the tops' number is checked.
  virtual Settings ReadSettings() const;

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  // Nothing is propagated; this serves the GPU, too.
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& /* top */,
      const vector<bool>& /* propagate_down */,
      const vector<Blob<Dtype>*>& /* bottom */) {}

  /// One batch in a prefetch buffer: N x channels x height x width of the data,
  /// then N x 1 x height x width of the labels and N x 2 of the images' sizes,
  /// where there are tops for them.
  struct Batch {
    Batch(int device, const string& owner)
        : height(0), width(0), values(device, owner) {}
    int height;
    int width;
    StagedBuffer values;
  };

  /// How messages begin.
  string Name() const;
  /// The checks of what every layer's fields come to.
  void CheckParameters() const;
  void CheckBound(const char* field, uint32_t value, uint32_t least,
      uint32_t most) const;
  /// Which samples come; forgets what was read ahead.
  void SetOrder(uint64_t seed);
  void LoadItem(Batch* batch, int64_t forward_pass, int item) const;
  /// Makes room for images of this size.
  void SetSize(int height, int width, Batch* batch) const;
  size_t DataCount(const Batch& batch) const;
  size_t LabelCount(const Batch& batch) const;
  size_t SizeCount() const { return has_sizes_ ? 2 * batch_size_ : 0; }
  size_t Count(const Batch& batch) const {
    return DataCount(batch) + LabelCount(batch) + SizeCount();
  }
  /// Starts the threads; the batches come on `device`, too, if there is one.
  void StartPool(int device);
  void ShapeTops(int height, int width, const vector<Blob<Dtype>*>& top);
  /// Waits for the next batch, whose size the tops get.
  Batch* NextBatch(const vector<Blob<Dtype>*>& top);
  /// Gives the buffer of NextBatch back.
  void ReleaseBatch();

  Settings settings_;
  bool has_label_;
  bool has_sizes_;
  bool whole_image_;
  int crop_height_;
  int crop_width_;
  int batch_size_;
  std::unique_ptr<const SampleOrder> order_;
  std::unique_ptr<const Augmentation> augmentation_;
  int64_t first_sample_;
  // What each of the 256 pixel values becomes, by channel; and each label.
  vector<Dtype> data_value_;   // channels x 256
  vector<Dtype> label_value_;  // 256
  int solver_count_;
  int solver_rank_;
  int64_t next_forward_pass_;
  vector<std::unique_ptr<Batch> > batches_;
  // The last member, so that its threads end before what they use is gone.
  std::unique_ptr<PrefetchPool> pool_;
};

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV

#endif  // CAFFE_SEGMENTATION_DATA_LAYER_HPP_
