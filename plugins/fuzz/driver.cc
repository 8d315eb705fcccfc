// Feeds the target without libFuzzer, for compilers that have none: random inputs from a seed, some of them kept and
// changed a little, until the time is up.
//
//   visdeploy_fuzz [seconds = 20] [seed = 1]
//   visdeploy_fuzz FILE...                     runs the inputs in the files once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

void change(Input& input, std::mt19937_64& random) {
  if (input.empty()) return;
  for (uint64_t count = 1 + random() % 4; count > 0; --count) {
    uint8_t& byte = input[random() % input.size()];
    byte = random() % 2 ? static_cast<uint8_t>(random()) : static_cast<uint8_t>(byte + 1);
  }
  if (random() % 4 == 0) input.resize(random() % (input.size() + 1));
}

// Most inputs have few odd bytes: a call with everything wrong is refused for the first of its faults.
Input fresh(std::mt19937_64& random) {
  Input input(random() % 512);
  const uint64_t highest = random() % 2 ? 256 : 64;
  for (uint8_t& byte : input) byte = static_cast<uint8_t>(random() % highest);
  return input;
}

int run_for(double seconds, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Input> kept(256);
  const auto begun = std::chrono::steady_clock::now();
  uint64_t runs = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count() < seconds; ++runs) {
    Input input;
    if (random() % 2 == 0) input = kept[random() % kept.size()];
    if (input.empty()) input = fresh(random);
    change(input, random);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    if (random() % 8 == 0) kept[random() % kept.size()] = input;
  }
  std::printf("Done %llu runs, seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(seed));
  return 0;
}

}  // namespace

int main(int count, char** words) {
  char* rest = nullptr;
  const double seconds = count > 1 ? std::strtod(words[1], &rest) : 20;
  if (count <= 1 || *rest == '\0') return run_for(seconds, count > 2 ? std::strtoull(words[2], nullptr, 10) : 1);
  for (int i = 1; i < count; ++i) {
    std::ifstream file(words[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", words[i]);
      return 1;
    }
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  }
  return 0;
}
