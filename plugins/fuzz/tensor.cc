#include "fuzz/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace visdeploy::fuzz {
namespace {

constexpr int64_t kMostElements = 1 << 13;

size_t size_of(int32_t dtype) {
  switch (dtype) {
    case VD_FLOAT32:
    case VD_INT32:
      return 4;
    case VD_FLOAT16:
    case VD_BFLOAT16:
      return 2;
    case VD_FLOAT64:
    case VD_INT64:
      return 8;
    default:
      return 1;  // bool, and what no op may touch
  }
}

// Number of elements, or -1 when there is no such tensor or it is too large to own.
int64_t owned_elements(const Shape& shape) {
  if (std::any_of(shape.begin(), shape.end(), [](int64_t dim) { return dim < 0; })) return -1;
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t product = 1;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(product, dim, &product) || product > kMostElements) return -1;
  }
  return product;
}

template <typename T>
void put(char* memory, int64_t index, T value) {
  std::memcpy(memory + static_cast<size_t>(index) * sizeof(T), &value, sizeof(T));
}

// Not the nearest half: 0.125 to 2 and their negatives for ordinary numbers, infinity or no number for odd ones.
uint16_t half_bits(double number) {
  if (!(std::abs(number) <= 2)) return number == number ? 0x7c00 : 0x7e00;
  return static_cast<uint16_t>((number < 0 ? 0x8000 : 0) | (0x3000 + static_cast<int>(std::abs(number) * 2000)));
}

// One byte of input says one element; a short tail of them is repeated, so that large tensors leave input for the rest.
void fill(char* memory, int64_t elements, int32_t dtype, const std::vector<int64_t>& values, Bytes& bytes) {
  constexpr int64_t kDrawn = 32;
  double drawn[kDrawn];
  const int64_t count = std::min(elements, kDrawn);
  for (int64_t i = 0; i < count; ++i) drawn[i] = bytes.number();
  for (int64_t i = 0; i < elements; ++i) {
    const double number = drawn[(i + i / kDrawn) % count];
    const bool given = i < static_cast<int64_t>(values.size());
    const int64_t whole = given ? values[static_cast<size_t>(i)] : static_cast<int64_t>(std::abs(number) < 4) * i;
    switch (dtype) {
      case VD_FLOAT32:
        put(memory, i, static_cast<float>(number));
        break;
      case VD_FLOAT64:
        put(memory, i, number);
        break;
      case VD_INT64:
        put(memory, i, whole);
        break;
      case VD_INT32:
        put(memory, i, static_cast<int32_t>(whole));
        break;
      case VD_FLOAT16:
        put(memory, i, half_bits(number));
        break;
      case VD_BFLOAT16: {
        const float single = static_cast<float>(number);
        uint32_t bits;
        std::memcpy(&bits, &single, sizeof(bits));
        put(memory, i, static_cast<uint16_t>(bits >> 16));
        break;
      }
      default:
        put(memory, i, static_cast<uint8_t>(number > 0));
    }
  }
}

}  // namespace

void Tensor::spoil(Bytes& bytes) {
  const auto axis = static_cast<size_t>(bytes.below(std::max<int64_t>(static_cast<int64_t>(shape_.size()), 1)));
  const bool has_axis = axis < shape_.size();
  switch (bytes.below(13)) {
    case 0:
      present_ = !present_;
      break;
    case 1:
      null_shape_ = true;
      break;
    case 2:
      null_data_ = true;
      break;
    case 3:
      rank_offset_ = static_cast<int32_t>(bytes.odd_integer());
      break;
    case 4:
      dtype_ = static_cast<int32_t>(bytes.between(-1, 9));
      break;
    case 5:
      if (has_axis) shape_[axis] = bytes.odd_integer();
      break;
    case 6:
      // Wraps around like the bytes it is made of: a size may be the smallest number already.
      if (has_axis)
        shape_[axis] =
            static_cast<int64_t>(static_cast<uint64_t>(shape_[axis]) + static_cast<uint64_t>(bytes.between(-1, 1)));
      break;
    case 7:
      if (has_axis) shape_[axis] = 0;
      break;
    case 8:
      if (has_axis) shape_.erase(shape_.begin() + static_cast<int64_t>(axis));
      break;
    case 9:
      shape_.insert(shape_.begin() + static_cast<int64_t>(std::min(axis, shape_.size())), bytes.between(0, 2));
      break;
    case 10:
      if (has_axis) std::swap(shape_[axis], shape_[shape_.size() - 1]);
      break;
    case 11:
      if (!values_.empty())
        values_[static_cast<size_t>(bytes.below(static_cast<int64_t>(values_.size())))] = bytes.odd_integer();
      break;
    default:
      has_strides_ = true;
      for (size_t i = 0; i < shape_.size(); ++i) strides_.push_back(bytes.odd_integer());
  }
}

const vd_tensor* Tensor::prepare(Bytes& bytes) {
  if (!present_) return nullptr;
  if (!has_strides_ && bytes.seldom()) {
    // Those of a contiguous tensor, which are as good as none.
    has_strides_ = true;
    strides_.assign(shape_.size(), 1);
    for (size_t i = shape_.size(); i-- > 1;) {
      if (__builtin_mul_overflow(strides_[i], shape_[i], &strides_[i - 1])) strides_[i - 1] = 1;
    }
  }
  strides_.resize(shape_.size(), 1);
  exact_shape_ = std::make_unique<int64_t[]>(shape_.size());
  exact_strides_ = std::make_unique<int64_t[]>(shape_.size());
  std::copy(shape_.begin(), shape_.end(), exact_shape_.get());
  std::copy(strides_.begin(), strides_.end(), exact_strides_.get());
  const int64_t elements = owned_elements(shape_);
  const int64_t rank = static_cast<int64_t>(shape_.size()) + rank_offset_;
  view_.shape = null_shape_ ? nullptr : exact_shape_.get();
  view_.strides = has_strides_ ? exact_strides_.get() : nullptr;
  view_.dtype = dtype_;
  // No op looks at more dimensions than it expects, but a rank beyond the shape's own would say that they are there.
  view_.rank = static_cast<int32_t>(rank_offset_ > 0 ? -rank_offset_ : rank);
  if (elements > 0 && !null_data_) {
    const size_t size = static_cast<size_t>(elements) * size_of(dtype_);
    memory_.reset(new char[size]);
    fill(memory_.get(), elements, dtype_, values_, bytes);
    view_.data = memory_.get();
  }
  return &view_;
}

int32_t any_float(Bytes& bytes) {
  constexpr int32_t kFloats[] = {VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16};
  return kFloats[bytes.below(4)];
}

void spoil_some(std::vector<Tensor>& tensors, Bytes& bytes) {
  for (int64_t count = bytes.below(3); count > 0; --count) {
    tensors[static_cast<size_t>(bytes.below(static_cast<int64_t>(tensors.size())))].spoil(bytes);
  }
}

std::vector<const vd_tensor*> prepare_all(std::vector<Tensor>& tensors, Bytes& bytes) {
  std::vector<const vd_tensor*> views;
  views.reserve(tensors.size());
  for (Tensor& tensor : tensors) views.push_back(tensor.prepare(bytes));
  return views;
}

}  // namespace visdeploy::fuzz
