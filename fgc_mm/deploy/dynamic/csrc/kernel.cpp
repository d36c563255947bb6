// What Python sees of the kernel. A single conv or gate holds the
// interpreter's lock: it is short, and a conv keeps layouts that two threads
// must not make at once. A program has made them, and lets others run.
#include "conv.h"
#include "gate.h"
#include "pool.h"
#include "program.h"

namespace py = pybind11;

// Classes are the module's own: a process may load several builds.
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.attr("lanes") = fgc::kLanes;
  const auto own = py::module_local();
  py::class_<fgc::Conv, std::shared_ptr<fgc::Conv>>(m, "Conv", own)
      .def(py::init<at::Tensor, at::Tensor, std::vector<int64_t>, bool,
                    double, double, bool>())
      .def("run", &fgc::Conv::run);
  py::class_<fgc::Gate, std::shared_ptr<fgc::Gate>>(m, "Gate", own)
      .def(py::init<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                    double>())
      .def("run", &fgc::Gate::run);
  py::class_<fgc::Program>(m, "Program", own)
      .def(py::init<int64_t, std::vector<int64_t>>())
      .def("value", &fgc::Program::value)
      .def("conv", &fgc::Program::conv)
      .def("gate", &fgc::Program::gate)
      .def("max_pool", &fgc::Program::max_pool)
      .def("copy", &fgc::Program::copy)
      .def("mean", &fgc::Program::mean)
      .def("linear", &fgc::Program::linear)
      .def("output", &fgc::Program::output)
      .def("keep_alone", &fgc::Program::keep_alone)
      .def("run", &fgc::Program::run,
           py::call_guard<py::gil_scoped_release>())
      .def("profile", &fgc::Program::profile);
  m.def("max_pool", [](const at::Tensor& x, int64_t kernel, int64_t stride,
                       int64_t padding) {
    return fgc::MaxPool{kernel, stride, padding}.run(x);
  });
}
