#ifndef CAFFE_DISTRIBUTED_EXCHANGE_PLAN_HPP_
#define CAFFE_DISTRIBUTED_EXCHANGE_PLAN_HPP_

#include <cstddef>
#include <vector>

namespace caffe {

/**
 * @brief Which gradients ranks exchange, in what order, in which buckets.
 *
 * The gradients of all parameters that learn lie one after another in a buffer,
 * in the order in which backward finishes them. A bucket is a part of it that is
 * sent at once: whole parameters, the first bucket with the first that make 1 MB
 * together, so that sending begins early, the others with 4 MB or more.
 */
class ExchangePlan {
 public:
  static const size_t FIRST_BUCKET_BYTES = 1 << 20;
  static const size_t BUCKET_BYTES = 4 << 20;

  /// A parameter of a net.
  struct Parameter {
    size_t count;      ///< of its values
    int lowest_layer;  ///< the last one whose backward adds to its gradient
    bool learns;       ///< whether its gradient is of use
  };
  /// Where a parameter's gradient lies in the buffer.
  struct Place {
    int parameter;
    size_t first;
  };
  struct Bucket {
    size_t first, count;  ///< values in the buffer
    int ready_after;      ///< the layer after whose backward it is whole
  };

  /// @param value_bytes of a value
  ExchangePlan(const std::vector<Parameter>& parameters, size_t value_bytes);

  const std::vector<Place>& places() const { return places_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  /// Values of the buffer.
  size_t count() const { return count_; }

 private:
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  size_t count_;
};

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_EXCHANGE_PLAN_HPP_
