// Converts exceptions to the error codes and messages of the C interface.
#pragma once

#include <stdio.h>

#include <exception>
#include <new>

#include "model.h"

namespace fgc {

inline int fail(int code, const char* text, char* error, uint64_t size) {
  if (error && size) snprintf(error, size_t(size), "%s", text);
  return code;
}

template <class F>
int guard(char* error, uint64_t size, const F& f) {
  try {
    f();
    return fail(FGC_OK, "", error, size);
  } catch (const Error& e) {
    return fail(e.code, e.text.c_str(), error, size);
  } catch (const std::bad_alloc&) {
    return fail(FGC_NO_MEMORY, "there is not enough memory: free some", error,
                size);
  } catch (const std::exception& e) {
    return fail(FGC_BAD_FILE, e.what(), error, size);
  } catch (...) {
    return fail(FGC_CALL_FAILED, "a function of the caller failed", error,
                size);
  }
}

// The result of f, or the fallback if it throws.
template <class T, class F>
T guarded(T fallback, const F& f) {
  guard(nullptr, 0, [&] { fallback = f(); });
  return fallback;
}

inline void expect_argument(bool condition, const char* text) {
  if (!condition) throw Error{FGC_BAD_ARGUMENT, text};
}

}  // namespace fgc
