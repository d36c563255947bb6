// What Python sees of the kernel. The interpreter's lock is held: a call is
// short, and convs and gates keep memory that two threads must not share.
#include "conv.h"
#include "gate.h"
#include "pool.h"

namespace py = pybind11;

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::class_<fgc::Conv>(m, "Conv")
      .def(py::init<at::Tensor, at::Tensor, std::vector<int64_t>, bool,
                    double, double, bool>())
      .def("run", &fgc::Conv::run);
  py::class_<fgc::Gate>(m, "Gate")
      .def(py::init<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                    double>())
      .def("run", &fgc::Gate::run);
  m.def("max_pool", &fgc::max_pool);
}
