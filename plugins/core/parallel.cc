#include "core/parallel.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace visdeploy {
namespace {
// A thread costs some 20 microseconds to start and join; this many multiply-adds take about ten times as long.
constexpr int64_t kWorthAThread = 1 << 20;
}  // namespace

void parallel_for(int64_t items, int64_t cost, int threads, const std::function<void(int64_t, int64_t)>& body) {
  if (items <= 0) return;
  // In double, because the product of two large counts may not fit an integer.
  const double worth = static_cast<double>(items) * static_cast<double>(cost) / kWorthAThread;
  const auto parts = static_cast<int64_t>(std::min<double>(
      {static_cast<double>(std::max(threads, 1)), static_cast<double>(items), std::max(worth, 1.0)}));
  if (parts <= 1) return body(0, items);

  std::vector<std::exception_ptr> errors(static_cast<size_t>(parts));
  const auto run = [&](int64_t part) noexcept {
    try {
      body(items / parts * part + std::min(part, items % parts),
           items / parts * (part + 1) + std::min(part + 1, items % parts));
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(static_cast<size_t>(parts - 1));
  int64_t started = 1;
  try {
    for (; started < parts; ++started) workers.emplace_back(run, started);
  } catch (const std::exception&) {
    // No more threads to be had: the parts that got none run below, on this one.
  }
  run(0);
  for (int64_t part = started; part < parts; ++part) run(part);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace visdeploy
