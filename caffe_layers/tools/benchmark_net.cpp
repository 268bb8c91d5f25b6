// Times a whole network: forward, forward and backward, or a solver's step.
//
//   benchmark_net -model deploy.prototxt -pass forward -gpu 0 -json out.json
//   benchmark_net -solver solver.prototxt -pass step -gpu 0
//     -inputs "data:10,3,240,320 label:10,1,240,320:8" -json out.json
//
// Inputs are drawn at random, so that neither a zero nor a constant makes the
// work easier than real data would, and so are the mean and the variance that
// BatchNorm layers use in the phase TEST. On a GPU the clock is a pair of events
// around whole passes; nothing waits between the layers.

#include <gflags/gflags.h>
#include <glog/logging.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"
#include "caffe/gpu/gpu_device.hpp"
#include "caffe/gpu/gpu_precision.hpp"
#include "caffe/util/benchmark.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/upgrade_proto.hpp"

using caffe::Blob;
using caffe::Caffe;
using caffe::LayerParameter;
using caffe::Net;
using caffe::NetParameter;
using caffe::shared_ptr;
using caffe::Solver;
using caffe::SolverParameter;
using std::string;
using std::vector;

DEFINE_string(model, "", "the network (prototxt); with -pass step the solver"
    " names one, too");
DEFINE_string(solver, "", "the solver (prototxt) of -pass step");
DEFINE_string(pass, "forward", "forward, forward+backward or step");
DEFINE_string(phase, "", "TRAIN or TEST; default: TEST for forward alone");
DEFINE_string(inputs, "", "name:shape or name:shape:classes, separated by"
    " spaces, such as \"data:10,3,240,320 label:10,1,240,320:8\": layers that"
    " feed these blobs give way to random values of that shape, with classes"
    " whole numbers below it");
DEFINE_int32(gpu, -1, "the GPU; default: the processor");
DEFINE_int32(warmup, 3, "passes before the first that counts");
DEFINE_int32(repeats, 10, "times taken");
DEFINE_int32(chain, 1, "passes in a row for one time taken, which is divided"
    " by their number");
DEFINE_int32(seed, 1, "of the inputs and of the initial parameters");
DEFINE_bool(serve, false, "take one time for each line of standard input and"
    " answer with a line of JSON");
DEFINE_string(json, "", "the file for the results");
DEFINE_string(dump, "", "a folder for inputs, outputs, parameters and, after"
    " backward, gradients: <blob>.data.f32, <blob>.diff.f32,"
    " <layer>.param<i>.data.f32, ..., in the byte order of the machine");

namespace {

// --- JSON -------------------------------------------------------------------

/// Text as JSON has it.
string Quoted(const string& text) {
  std::ostringstream out;
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", c);
      out << escaped;
    } else {
      out << c;
    }
  }
  out << '"';
  return out.str();
}

/// `[a, b, ...]` of what `write` makes of each item.
template <typename Items, typename Write>
string List(const Items& items, const Write& write) {
  std::ostringstream out;
  out.precision(9);
  const char* separator = "[";
  for (const auto& item : items) {
    out << separator << write(item);
    separator = ", ";
  }
  return items.empty() ? "[]" : out.str() + "]";
}

string ShapeOf(const Blob<float>& blob) {
  return List(blob.shape(), [](int size) { return size; });
}

string ShapesOf(const vector<Blob<float>*>& blobs) {
  return List(blobs, [](Blob<float>* blob) { return ShapeOf(*blob); });
}

string Flag(bool set) { return set ? "true" : "false"; }

// --- Inputs -----------------------------------------------------------------

/// A blob that random values feed.
struct RandomInput {
  string name;
  vector<int> shape;
  int classes;  // 0: normally distributed values
};

vector<string> Split(const string& text, char separator) {
  vector<string> parts;
  std::istringstream in(text);
  for (string part; std::getline(in, part, separator);) {
    if (!part.empty()) { parts.push_back(part); }
  }
  return parts;
}

int PositiveNumber(const string& text, const string& where) {
  char* end = nullptr;
  const long number = std::strtol(text.c_str(), &end, 10);  // NOLINT
  CHECK(!text.empty() && *end == '\0' && number > 0 && number < (1 << 30))
      << "-inputs: '" << text << "' in '" << where
      << "' is no number above 0; expected name:N,C,H,W or"
      << " name:N,C,H,W:classes";
  return static_cast<int>(number);
}

vector<RandomInput> ParseInputs(const string& text) {
  vector<RandomInput> inputs;
  for (const string& item : Split(text, ' ')) {
    const vector<string> parts = Split(item, ':');
    CHECK(parts.size() == 2 || parts.size() == 3) << "-inputs: '" << item
        << "' given, name:N,C,H,W or name:N,C,H,W:classes expected";
    RandomInput input = {parts[0], {}, 0};
    for (const string& size : Split(parts[1], ',')) {
      input.shape.push_back(PositiveNumber(size, item));
    }
    if (parts.size() == 3) {
      input.classes = PositiveNumber(parts[2], item);
    }
    inputs.push_back(input);
  }
  return inputs;
}

/// Puts an Input layer in the place of every layer that feeds `inputs`.
void ReplaceSources(const vector<RandomInput>& inputs, NetParameter* net) {
  std::map<string, const RandomInput*> wanted;
  for (const RandomInput& input : inputs) { wanted[input.name] = &input; }
  NetParameter kept(*net);
  net->clear_layer();
  for (const RandomInput& input : inputs) {
    LayerParameter* layer = net->add_layer();
    layer->set_name(input.name);
    layer->set_type("Input");
    layer->add_top(input.name);
    caffe::BlobShape* shape = layer->mutable_input_param()->add_shape();
    for (const int size : input.shape) { shape->add_dim(size); }
  }
  std::map<string, bool> was_fed;
  for (const LayerParameter& layer : kept.layer()) {
    int fed = 0;
    for (const string& top : layer.top()) {
      if (layer.bottom_size() == 0 && wanted.count(top)) {
        ++fed;
        was_fed[top] = true;
      }
    }
    CHECK(fed == 0 || fed == layer.top_size()) << "-inputs names " << fed
        << " of the " << layer.top_size() << " tops of the layer '"
        << layer.name() << "'; all of them are expected";
    if (fed == 0) { net->add_layer()->CopyFrom(layer); }
  }
  for (const RandomInput& input : inputs) {
    CHECK(was_fed[input.name]) << "-inputs: no layer of the network feeds a"
        << " blob '" << input.name << "'";
  }
}

void FillInputs(const vector<RandomInput>& inputs, Net<float>* net) {
  for (const int index : net->input_blob_indices()) {
    Blob<float>* blob = net->blobs()[index].get();
    int classes = 0;
    for (const RandomInput& input : inputs) {
      if (input.name == net->blob_names()[index]) { classes = input.classes; }
    }
    float* values = blob->mutable_cpu_data();
    if (classes == 0) {
      caffe::caffe_rng_gaussian<float>(blob->count(), 0, 1, values);
      continue;
    }
    caffe::caffe_rng_uniform<float>(blob->count(), 0, classes, values);
    for (int i = 0; i < blob->count(); ++i) {
      // the upper end of the range may be drawn, too
      values[i] = std::min(std::floor(values[i]), classes - 1.f);
    }
  }
}

/// BatchNorm layers that have met no batch would divide by the root of their
/// eps alone in a test, and drive what follows to its ends.
void FillStatistics(Net<float>* net) {
  for (const shared_ptr<caffe::Layer<float> >& layer : net->layers()) {
    if (string(layer->type()) != "BatchNorm") { continue; }
    Blob<float>* mean = layer->blobs()[0].get();
    Blob<float>* variance = layer->blobs()[1].get();
    caffe::caffe_rng_gaussian<float>(mean->count(), 0, 1,
                                     mean->mutable_cpu_data());
    caffe::caffe_rng_uniform<float>(variance->count(), 0.5f, 2,
                                    variance->mutable_cpu_data());
    layer->blobs()[2]->mutable_cpu_data()[0] = 1;  // of batches met
  }
}

/// Outputs that are no losses get a random gradient.
void FillOutputGradients(Net<float>* net) {
  for (const int index : net->output_blob_indices()) {
    if (net->blob_loss_weights()[index] == 0) {
      Blob<float>* blob = net->blobs()[index].get();
      caffe::caffe_rng_gaussian<float>(blob->count(), 0, 1,
                                       blob->mutable_cpu_diff());
    }
  }
}

// --- Memory -----------------------------------------------------------------

/// MiB in use: of the GPU by everyone, or of the process at most so far.
double MemoryMiB() {
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU) {
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return (total - free) / 1048576.0;
  }
#endif
  std::ifstream status("/proc/self/status");
  for (string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmHWM:") == 0) {
      return std::atof(line.c_str() + 6) / 1024;
    }
  }
  return 0;
}

// --- Results ----------------------------------------------------------------

double Median(vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half]
                           : (values[half - 1] + values[half]) / 2;
}

/// Writes values as a file of -dump; `"name": shape` as JSON.
string Write(const string& name, const float* values, const Blob<float>& blob) {
  CHECK_EQ(name.find('/'), string::npos)
      << "-dump: '" << name << "' is no file's name";
  const string path = FLAGS_dump + "/" + name;
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(values),
            static_cast<std::streamsize>(blob.count()) * sizeof(float));
  out.close();
  CHECK(out) << path << ": not writable; -dump expects a folder that exists";
  return Quoted(name) + ": " + ShapeOf(blob);
}

/// Writes what came in and what came out; the files' names and shapes as JSON.
string Dump(Net<float>* net, bool gradients) {
  string files;
  const auto write = [&](const string& name, Blob<float>* blob) {
    files += (files.empty() ? "" : ", ") +
             Write(name + ".data.f32", blob->cpu_data(), *blob);
    if (gradients) {
      files += ", " + Write(name + ".diff.f32", blob->cpu_diff(), *blob);
    }
  };
  for (const vector<int>* indices :
       {&net->input_blob_indices(), &net->output_blob_indices()}) {
    for (const int index : *indices) {
      write(net->blob_names()[index], net->blobs()[index].get());
    }
  }
  for (size_t i = 0; i < net->layers().size(); ++i) {
    const vector<shared_ptr<Blob<float> > >& blobs = net->layers()[i]->blobs();
    for (size_t j = 0; j < blobs.size(); ++j) {
      write(net->layer_names()[i] + ".param" + std::to_string(j),
            blobs[j].get());
    }
  }
  return "{" + files + "}";
}

/// What each layer takes, gives and holds: operations and bytes follow from it.
string Layers(const Net<float>& net) {
  vector<string> layers;
  for (size_t i = 0; i < net.layers().size(); ++i) {
    vector<Blob<float>*> params;
    for (const shared_ptr<Blob<float> >& blob : net.layers()[i]->blobs()) {
      params.push_back(blob.get());
    }
    const vector<bool>& down = net.bottom_need_backward()[i];
    std::ostringstream out;
    out << "{\"name\": " << Quoted(net.layer_names()[i])
        << ", \"type\": " << Quoted(net.layers()[i]->type())
        << ", \"bottoms\": " << ShapesOf(net.bottom_vecs()[i])
        << ", \"tops\": " << ShapesOf(net.top_vecs()[i])
        << ", \"params\": " << ShapesOf(params)
        << ", \"backward\": " << Flag(net.layer_need_backward()[i])
        << ", \"propagate_down\": " << Flag(
            std::find(down.begin(), down.end(), true) != down.end())
        << "}";
    layers.push_back(out.str());
  }
  return List(layers, [](const string& layer) { return "\n  " + layer; });
}

/// The network with its work: what the command line asks for.
class Benchmark {
 public:
  explicit Benchmark(const vector<RandomInput>& inputs)
      : backward_(FLAGS_pass != "forward") {
    NetParameter description;
    SolverParameter schedule;
    if (FLAGS_pass == "step") {
      CHECK(!FLAGS_solver.empty()) << "-pass step expects -solver";
      caffe::ReadSolverParamsFromTextFileOrDie(FLAGS_solver, &schedule);
    }
    const string model = FLAGS_model.empty() ? schedule.net() : FLAGS_model;
    CHECK(!model.empty()) << "-model expects a network (prototxt)";
    caffe::ReadNetParamsFromTextFileOrDie(model, &description);
    const string phase =
        FLAGS_phase.empty() ? (backward_ ? "TRAIN" : "TEST") : FLAGS_phase;
    CHECK(phase == "TRAIN" || phase == "TEST")
        << "-phase " << phase << ": TRAIN or TEST expected";
    description.mutable_state()->set_phase(phase == "TRAIN" ? caffe::TRAIN
                                                            : caffe::TEST);
    NetParameter chosen;
    Net<float>::FilterNet(description, &chosen);
    ReplaceSources(inputs, &chosen);
    if (FLAGS_pass == "step") {
      CHECK_EQ(phase, "TRAIN") << "-pass step";
      solver_.reset(caffe::SolverRegistry<float>::CreateSolver(
          TrainingAlone(schedule, chosen)));
      net_ = solver_->net();
    } else {
      net_.reset(new Net<float>(chosen));
    }
    if (backward_ && !solver_) {
      const vector<bool>& need = net_->layer_need_backward();
      CHECK(std::find(need.begin(), need.end(), true) != need.end())
          << "-pass " << FLAGS_pass << ": no layer of '" << net_->name()
          << "' has a gradient; a loss or force_backward: true is expected";
    }
    FillInputs(inputs, net_.get());
    if (net_->phase() == caffe::TEST) { FillStatistics(net_.get()); }
    if (backward_) { FillOutputGradients(net_.get()); }
  }

  /// One pass; parameters' gradients start at zero, as in a solver's step.
  void Pass() {
    if (solver_) {
      solver_->Step(1);
      return;
    }
    if (backward_) { net_->ClearParamDiffs(); }
    net_->Forward();
    if (backward_) { net_->Backward(); }
  }

  Net<float>* net() { return net_.get(); }
  bool backward() const { return backward_; }

 private:
  /// The solver without tests, output and snapshots.
  static SolverParameter TrainingAlone(const SolverParameter& schedule,
                                       const NetParameter& net) {
    SolverParameter param(schedule);
    param.clear_net();
    param.clear_train_net();
    param.clear_test_net();
    param.clear_test_iter();
    param.clear_test_state();
    param.mutable_net_param()->CopyFrom(net);
    param.set_test_interval(0);
    param.set_test_initialization(false);
    param.set_display(0);
    param.set_snapshot(0);
    param.set_snapshot_after_train(false);
    param.set_random_seed(FLAGS_seed);
    return param;
  }

  const bool backward_;
  shared_ptr<Solver<float> > solver_;
  shared_ptr<Net<float> > net_;
};

void WriteJson(const vector<double>& milliseconds, double memory_mib,
               Benchmark* benchmark) {
  std::ostringstream out;
  out.precision(9);
  out << "{\"milliseconds\": "
      << List(milliseconds, [](double value) { return value; })
      << ", \"allow_tf32\": " << Flag(caffe::AllowTF32());
  out << ",\n \"memory_mib\": " << memory_mib;
  if (!FLAGS_dump.empty()) {
    out << ",\n \"dump\": " << Dump(benchmark->net(), benchmark->backward());
  }
  out << ",\n \"layers\": " << Layers(*benchmark->net()) << "}\n";
  std::ofstream file(FLAGS_json);
  file << out.str();
  file.close();
  CHECK(file) << FLAGS_json << ": not writable";
}

}  // namespace

int main(int argc, char** argv) {
  FLAGS_alsologtostderr = 1;
  FLAGS_minloglevel = google::WARNING;  // the account of every layer is no news
  gflags::SetUsageMessage("times a network\n"
      "usage: benchmark_net -model FILE [-pass forward|forward+backward]\n"
      "       benchmark_net -solver FILE -pass step [-model FILE]\n"
      "example: benchmark_net -model deploy.prototxt -gpu 0 -json out.json");
  caffe::GlobalInit(&argc, &argv);
  CHECK_EQ(argc, 1) << argv[1] << ": not understood; -help lists the flags";
  CHECK(FLAGS_pass == "forward" || FLAGS_pass == "forward+backward" ||
        FLAGS_pass == "step")
      << "-pass " << FLAGS_pass << ": forward, forward+backward or step"
      << " expected";
  CHECK_GT(FLAGS_chain, 0) << "-chain";
  CHECK_GT(FLAGS_repeats, 0) << "-repeats";

  if (FLAGS_gpu >= 0) {
    const string fault = caffe::GpuFault(FLAGS_gpu);
    if (!fault.empty()) {
      std::cerr << "benchmark_net: GPU " << FLAGS_gpu << ": " << fault << "\n";
      return 2;
    }
    Caffe::SetDevice(FLAGS_gpu);
    Caffe::set_mode(Caffe::GPU);
  }
  Caffe::set_random_seed(FLAGS_seed);
  const double memory_before = MemoryMiB();
  Benchmark benchmark(ParseInputs(FLAGS_inputs));
  for (int i = 0; i < FLAGS_warmup; ++i) { benchmark.Pass(); }
  // Nothing is allocated after the first pass, so that this is the most.
  const double memory_mib = MemoryMiB() - memory_before;

  caffe::Timer timer;
  vector<double> milliseconds;
  const auto take_time = [&]() {
    timer.Start();
    for (int i = 0; i < FLAGS_chain; ++i) { benchmark.Pass(); }
    timer.Stop();
    milliseconds.push_back(timer.MicroSeconds() / 1e3 / FLAGS_chain);
  };
  if (FLAGS_serve) {
    std::cout << "{\"ready\": true}" << std::endl;
    for (string line; std::getline(std::cin, line);) {
      take_time();
      std::cout << "{\"milliseconds\": " << milliseconds.back() << "}"
                << std::endl;
    }
  } else {
    for (int i = 0; i < FLAGS_repeats; ++i) { take_time(); }
    std::cout << FLAGS_pass << ": " << Median(milliseconds)
              << " ms (median of " << milliseconds.size() << "), "
              << memory_mib << " MiB" << std::endl;
  }
  if (!FLAGS_json.empty()) {
    WriteJson(milliseconds, memory_mib, &benchmark);
  }
  return 0;
}
