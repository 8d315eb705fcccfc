// Threads for callers that bring none of their own. ONNX Runtime brings its pool and does not use this.
#pragma once

#include <cstdint>
#include <functional>

namespace visdeploy {

// Splits [0, items) into equal parts and runs body(begin, end) on each, one of them on the calling thread. Uses at
// most `threads` threads, and fewer when a part would cost less than starting a thread for it; cost is the number of
// multiply-adds per item. The first exception of any part is thrown again.
void parallel_for(int64_t items, int64_t cost, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace visdeploy
