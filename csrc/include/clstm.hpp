/* SPDX-License-Identifier: MIT
 * clstm.hpp - clstm.h for C++17 and later, header only.
 *
 *   clstm::Model model("model.clstm");             throws clstm::Error
 *   clstm::Stream stream(model);                   throws clstm::Error
 *   std::array<float, 6> x;  std::array<float, 1> y;
 *   stream.step(x, y);                             noexcept, no allocation
 *
 *   - Model and Stream own what they hold and are moved, not copied (Stream::copy_from copies a
 *     state). A moved-from one is empty: it may be assigned to or destroyed, nothing else.
 *   - A Model must outlive its streams; to move it does not end its life.
 *   - Only constructors throw. With -fno-exceptions they are not there: Model::load and
 *     Stream::create return a clstm_status, and are there always.
 *   - clstm::span is std::span where there is one, else a pointer and a size. A view of another
 *     size than the model wants is a fault of the caller's, met by assert() and, under NDEBUG,
 *     by nothing: the hot path has no way to fail.
 *   - Threads: any number may share a Model; one at a time may use a Stream.
 */
#ifndef CLSTM_HPP
#define CLSTM_HPP

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

#include "clstm.h"

namespace clstm
{

#if defined(__cpp_lib_span)
template <class T>
using span = std::span<T>;
#else
template <class T>
class span
{
  public:
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : span(array, N)
    {
    }
    /* Of std::vector, std::array, another span: whatever has data() and size(). */
    template <class C, class U = std::remove_pointer_t<decltype(std::declval<C &>().data())>,
              class = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
    constexpr span(C &&of) noexcept : span(of.data(), of.size())
    {
    }
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

  private:
    T *data_;
    std::size_t size_;
};
#endif

struct Free {
    void operator()(clstm_model *model) const noexcept { clstm_model_free(model); }
    void operator()(clstm_stream *stream) const noexcept { clstm_stream_free(stream); }
};

#if defined(__cpp_exceptions)
struct Error : std::runtime_error {
    Error(clstm_status why, const char *what) : std::runtime_error(what), status(why) {}
    clstm_status status;
};
#endif

/* Packed weights. Immutable. */
class Model
{
  public:
    Model() noexcept = default; /* empty */

    /* Of a .clstm file, or of its bytes, which may go after the return. out is written on CLSTM_OK
     * alone; options and err may be NULL. */
    static clstm_status load(const char *path, const clstm_options *options, Model &out,
                             char err[256]) noexcept
    {
        clstm_model *made = nullptr;
        const clstm_status status = clstm_model_load(path, options, &made, err);
        return out.take(status, made);
    }
    static clstm_status load(span<const unsigned char> bytes, const clstm_options *options,
                             Model &out, char err[256]) noexcept
    {
        clstm_model *made = nullptr;
        const auto status =
            clstm_model_load_memory(bytes.data(), bytes.size(), options, &made, err);
        return out.take(status, made);
    }
#if defined(__cpp_exceptions)
    explicit Model(const std::string &path, const clstm_options *options = nullptr)
    {
        char err[256] = "";
        if (auto s = load(path.c_str(), options, *this, err); s != CLSTM_OK) throw Error(s, err);
    }
    explicit Model(span<const unsigned char> bytes, const clstm_options *options = nullptr)
    {
        char err[256] = "";
        if (auto s = load(bytes, options, *this, err); s != CLSTM_OK) throw Error(s, err);
    }
#endif

    explicit operator bool() const noexcept { return model_ != nullptr; }
    const clstm_model *get() const noexcept { return model_.get(); } /* still this Model's */

    std::size_t input_size() const noexcept { return clstm_input_size(get()); } /* 0 for tokens */
    std::size_t vocabulary() const noexcept { return clstm_vocabulary(get()); }
    std::size_t output_size() const noexcept { return clstm_output_size(get()); }
    std::size_t state_size() const noexcept { return clstm_state_size(get()); }
    const char *kernel() const noexcept { return clstm_kernel(get()); }
    bool streamable() const noexcept { return clstm_streamable(get()) != 0; }
    /* Whole sequences. Not for the hot path: it allocates what it works in. */
    clstm_status sequence(const clstm_batch &b) const noexcept { return clstm_sequence(get(), &b); }

  private:
    clstm_status take(clstm_status status, clstm_model *made) noexcept
    {
        if (status == CLSTM_OK) model_.reset(made);
        return status;
    }
    std::unique_ptr<clstm_model, Free> model_;
};

/* The state of one sequence. All but its making is HOT, as in clstm.h. */
class Stream
{
  public:
    Stream() noexcept = default; /* empty */

    static clstm_status create(const Model &model, Stream &out) noexcept
    {
        clstm_stream *made = nullptr;
        const clstm_status status = clstm_stream_create(model.get(), &made);
        if (status == CLSTM_OK) {
            out.stream_.reset(made);
            out.model_ = model.get();
        }
        return status;
    }
#if defined(__cpp_exceptions)
    explicit Stream(const Model &model)
    {
        const clstm_status status = create(model, *this);
        if (status == CLSTM_UNSUPPORTED) throw Error(status, "a layer goes against time");
        if (status != CLSTM_OK) throw Error(status, "no memory for a stream");
    }
#endif

    explicit operator bool() const noexcept { return stream_ != nullptr; }
    clstm_stream *get() const noexcept { return stream_.get(); } /* still this Stream's */

    /* One step: x [input_size] in, y [output_size] out; they may be the same. */
    void step(span<const float> x, span<float> y) noexcept
    {
        assert(x.size() == clstm_input_size(model_) && y.size() == clstm_output_size(model_));
        clstm_step(get(), x.data(), y.data());
    }
    void step_token(std::int64_t token, span<float> y) noexcept
    {
        assert(y.size() == clstm_output_size(model_));
        clstm_step_token(get(), token, y.data());
    }
    /* n steps: x [n][input_size], y [n][output_size]; no overlap. */
    void run(std::size_t n, span<const float> x, span<float> y) noexcept
    {
        assert(x.size() == n * clstm_input_size(model_) &&
               y.size() == n * clstm_output_size(model_));
        clstm_run(get(), n, x.data(), y.data());
    }
    void run_tokens(span<const std::int64_t> tokens, span<float> y) noexcept
    {
        assert(y.size() == tokens.size() * clstm_output_size(model_));
        clstm_run_tokens(get(), tokens.size(), tokens.data(), y.data());
    }
    void reset() noexcept { clstm_reset(get()); }
    /* state [state_size], in the order of clstm_state_size. */
    void get_state(span<float> state) const noexcept
    {
        assert(state.size() == clstm_state_size(model_));
        clstm_get_state(get(), state.data());
    }
    void set_state(span<const float> state) noexcept
    {
        assert(state.size() == clstm_state_size(model_));
        clstm_set_state(get(), state.data());
    }
    void copy_from(const Stream &other) noexcept
    {
        assert(model_ == other.model_);
        clstm_stream_copy(get(), other.get());
    }

  private:
    std::unique_ptr<clstm_stream, Free> stream_;
    const clstm_model *model_ = nullptr;
};

} // namespace clstm

#endif
