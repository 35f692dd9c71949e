#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "memory.h"

#if !defined(__x86_64__)
#error "the switch is written for x86-64"
#endif

// void simt_switch(void** save, void* load): keeps the callee-saved registers on the stack, its
// pointer in *save, and goes on where `load` was kept. ucontext would make two system calls. It
// ends in a jump because the return predictor would miss every time.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.hidden simt_switch
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size simt_switch, .-simt_switch
)");

namespace simt {
namespace {
constexpr size_t kGuard = 4096;
constexpr size_t kSavedRegisters = 6;
void* scheduler_stack_pointer;
}  // namespace

void Fiber::start(int index, void (*body)()) {
  if (!stack_) {
    static char* const stacks = static_cast<char*>(reserve((kStackBytes + kGuard) * kMost));
    char* guard = stacks + (kStackBytes + kGuard) * static_cast<size_t>(index);
    mprotect(guard, kGuard, PROT_NONE);  // a stack overflow faults instead of spreading
    stack_ = guard + kGuard;
  }
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes) - 2;
  top -= index % 12 * 40;  // equal page offsets would all compete for the same sets of the L1 cache
  *top = reinterpret_cast<void*>(body);
  stack_pointer_ = top - kSavedRegisters;
}

void Fiber::resume() { simt_switch(&scheduler_stack_pointer, stack_pointer_); }
void Fiber::leave() { simt_switch(&stack_pointer_, scheduler_stack_pointer); }

}  // namespace simt
