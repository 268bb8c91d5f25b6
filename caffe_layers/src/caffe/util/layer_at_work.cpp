#include "caffe/util/layer_at_work.hpp"

#include <glog/logging.h>

#include <ctime>
#include <iostream>
#include <new>
#include <string>

namespace caffe {

static thread_local const LayerAtWork* at_work = NULL;

/// Hears every message of glog's right after it was written, and before a fatal
/// one ends the program.
class LayerTeller : public google::LogSink {
 public:
  LayerTeller() { google::AddLogSink(this); }

  using google::LogSink::send;
  void send(google::LogSeverity severity, const char* /* path */,
      const char* /* file */, int /* line */, const struct ::tm* /* time */,
      const char* message, size_t size) override {
    if (severity != google::GLOG_FATAL || at_work == NULL) { return; }
    const std::string text(message, size);
    for (const LayerAtWork* at = at_work; at != NULL; at = at->outer_) {
      const LayerParameter& layer = at->layer_;
      for (const char quote : {'\'', '"'}) {
        if (text.find(quote + layer.name() + quote) != std::string::npos) { return; }
      }
      std::cerr << "in " << at->doing_ << " of layer '" << layer.name() << "' ("
          << layer.type() << ", " << Phase_Name(layer.phase()) << ")"
          << std::endl;
    }
  }
};

/// What `new` calls where the system gives no more: sizes that are absurd end in a
/// message with the layer's name, too.
static void TellOfMemory() {
  if (at_work == NULL) { throw std::bad_alloc(); }
  LOG(FATAL) << "The memory does not suffice.";
}

LayerAtWork::LayerAtWork(const LayerParameter& layer, const char* doing)
    : layer_(layer), doing_(doing), outer_(at_work) {
  static LayerTeller* const teller = new LayerTeller;  // as long as the program
  static_cast<void>(teller);
  if (std::get_new_handler() == NULL) { std::set_new_handler(TellOfMemory); }
  at_work = this;
}

LayerAtWork::~LayerAtWork() { at_work = outer_; }

}  // namespace caffe
