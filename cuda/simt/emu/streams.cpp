// Streams, events and graphs. Streams are lazy: work runs only when something waits for it, so a
// missing synchronisation or event gives stale data every time. SIMT_STREAMS=eager runs it at once.
#include "streams.h"

#include <cstdlib>
#include <deque>
#include <vector>

#include "failure.h"

namespace simt {

struct Operation {
  std::function<void()> run;  // may be empty: only waits
  Stream* after = nullptr;    // the stream that must have done `sequence` operations
  uint64_t sequence = 0;
};
struct Graph {
  std::vector<Operation> operations;  // in the order of issue, which is a topological one
};
struct Stream {
  std::deque<Operation> queue;
  uint64_t issued = 0, done = 0;
  Graph* capture = nullptr;
  bool began_capture = false;
};
struct Event {
  Stream* stream = nullptr;
  uint64_t sequence = 0;
  Graph* capture = nullptr;
};

namespace {

Stream null_stream;
std::vector<Stream*> streams;
Graph* capturing;

Stream* resolve(Stream* stream) { return stream ? stream : &null_stream; }

bool is_lazy() {
  static const bool lazy = [] {
    const char* text = getenv("SIMT_STREAMS");
    return !text || text[0] != 'e';
  }();
  return lazy;
}

void run_until(Stream* stream, uint64_t sequence) {
  while (stream->done < sequence && !stream->queue.empty()) {
    const Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (operation.after) run_until(operation.after, operation.sequence);
    if (operation.run) operation.run();
    ++stream->done;
  }
}
void run_all(Stream* stream) { run_until(stream, ~uint64_t{0}); }

void push(Stream* stream, Operation operation) {
  if (stream->capture) {
    stream->capture->operations.push_back(std::move(operation));
    return;
  }
  if (stream == &null_stream) finish_all_streams();  // it is ordered with everything
  stream->queue.push_back(std::move(operation));
  ++stream->issued;
  if (!is_lazy() || stream == &null_stream) run_all(stream);
}

}  // namespace

void enqueue(Stream* stream, std::function<void()> work) {
  push(resolve(stream), {std::move(work), nullptr, 0});
}

void finish_all_streams() {
  run_all(&null_stream);
  for (Stream* stream : streams) run_all(stream);
}

bool is_capturing() { return capturing != nullptr; }

}  // namespace simt

using namespace simt;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  streams.push_back(*stream = new Stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  run_all(stream);
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (resolve(stream)->capture) return cudaErrorStreamCaptureUnsupported;
  run_all(resolve(stream));
  return sticky_error;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Stream* s = resolve(stream);
  if (s->capture) return cudaErrorStreamCaptureUnsupported;
  run_until(s, s->done + 1);  // progress, so that polling ends
  return s->queue.empty() ? sticky_error : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture) {
    resolve(stream)->capture = event->capture;  // joins it
  } else if (event->stream) {
    push(resolve(stream), {nullptr, event->stream, event->sequence});
  }
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Stream* s = event->stream = resolve(stream);
  event->capture = s->capture;
  event->sequence = s->issued;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->capture) return cudaErrorStreamCaptureUnsupported;
  if (event->stream) run_until(event->stream, event->sequence);
  return sticky_error;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->capture) return cudaErrorStreamCaptureUnsupported;
  if (!event->stream || event->stream->done >= event->sequence) return sticky_error;
  run_until(event->stream, event->stream->done + 1);
  return cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  enqueue(stream, [=] { function(argument); });
  return sticky_error;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || capturing) return cudaErrorStreamCaptureUnsupported;
  stream->capture = capturing = new Graph;
  stream->began_capture = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->capture || !stream->began_capture) return cudaErrorStreamCaptureInvalidated;
  *graph = stream->capture;
  for (Stream* s : streams) {
    if (s->capture == *graph) s->capture = nullptr;
  }
  capturing = nullptr;
  stream->began_capture = false;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const Operation& operation : exec->operations) push(resolve(stream), operation);
  return sticky_error;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
