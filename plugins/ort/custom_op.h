// What every ONNX Runtime op of ours shares: creation of its kernel, shape inference and threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ort/tensor_view.h"

namespace visdeploy::ort {

// An op whose Kernel is built from the node (const Ort::ConstKernelInfo&) and computes with
//   void compute(const Ort::KernelContext& context) const;
// Derived adds GetName and the types, and
//   static void infer(OrtShapeInferContext* context);
template <typename Derived, typename Kernel>
struct CustomOp : Ort::CustomOpBase<Derived, Kernel, true> {
  CustomOp() {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) noexcept {
      return ort_guarded([&] { Derived::infer(context); });
    };
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept {
    return ort_guarded([&] { *kernel = new Kernel(Ort::ConstKernelInfo(info)); });
  }
};

// What Kernel inherits: nothing may be thrown into the engine.
template <typename Kernel>
struct KernelBase {
  OrtStatusPtr ComputeV2(OrtKernelContext* raw) noexcept {
    return ort_guarded([&] { static_cast<const Kernel*>(this)->compute(Ort::KernelContext(raw)); });
  }
};

// A task is about a tenth of a millisecond: enough of them to even out the threads, few enough to cost nothing.
struct Tasks {
  int64_t items, items_per_task, count;

  // cost is the number of multiply-adds per item.
  Tasks(int64_t number, int64_t cost)
      : items(number),
        items_per_task(std::clamp<int64_t>((1 << 20) / std::max<int64_t>(cost, 1), 1, std::max<int64_t>(number, 1))),
        count((items + items_per_task - 1) / items_per_task) {}
};

// Runs body(begin, end, task) for every task in ONNX Runtime's pool and returns when all are done. body may not throw.
template <typename Body>
void parallel_for(const Ort::KernelContext& context, const Tasks& tasks, const Body& body) {
  if (tasks.count <= 0) return;
  struct Job {
    const Tasks& tasks;
    const Body& body;
  };
  Job job = {tasks, body};
  context.ParallelFor(
      [](void* data, size_t task) {
        const Job& job = *static_cast<const Job*>(data);
        const int64_t begin = static_cast<int64_t>(task) * job.tasks.items_per_task;
        const int64_t end = std::min(begin + job.tasks.items_per_task, job.tasks.items);
        job.body(begin, end, static_cast<int64_t>(task));
      },
      static_cast<size_t>(tasks.count), 0, &job);
}

}  // namespace visdeploy::ort
