// Stacks for the threads of a block, and the switch between them and the scheduler.
#pragma once

#include <cstddef>

namespace simt {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 64 << 10;
  static constexpr int kMost = 1024;  // threads of a block

  // (Re)starts fiber `index` at body(), which must never return.
  void start(int index, void (*body)());
  void resume();  // by the scheduler; returns when the fiber leaves
  void leave();   // by the fiber
  bool owns(const void* p) const {
    return static_cast<const char*>(p) >= stack_ &&
           static_cast<const char*>(p) < stack_ + kStackBytes;
  }

 private:
  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;
};

}  // namespace simt
