// SPDX-License-Identifier: MIT
/* clstm.hpp against clstm.h: the same bits, the same errors, nothing that throws on the hot path.
 * Built for every standard from C++17 on, and without exceptions.
 *
 *     wrapper MODEL REVERSE TOKENS     three files: plain, against time, of tokens
 */
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "clstm.hpp"
#include "clstm.hpp" /* twice does no harm */

using clstm::Model;
using clstm::Stream;

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) std::printf("line %d: %s\n", __LINE__, #what), std::exit(1);                  \
    } while (0)

template <class T>
constexpr bool moved_only()
{
    return !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
           std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
}
static_assert(moved_only<Model>() && moved_only<Stream>());

using floats = std::vector<float>;
using in = clstm::span<const float>;
using out = clstm::span<float>;
using ids = clstm::span<const std::int64_t>;
static_assert(noexcept(std::declval<Stream &>().step(std::declval<in>(), std::declval<out>())));
static_assert(noexcept(std::declval<Stream &>().run(1, std::declval<in>(), std::declval<out>())));
static_assert(noexcept(std::declval<Stream &>().step_token(1, std::declval<out>())));
static_assert(noexcept(std::declval<Stream &>().run_tokens(std::declval<ids>(),
                                                           std::declval<out>())));
static_assert(noexcept(std::declval<Stream &>().reset()) &&
              noexcept(std::declval<Stream &>().copy_from(std::declval<Stream &>())));
static_assert(noexcept(std::declval<Stream &>().get_state(std::declval<out>())));
static_assert(noexcept(std::declval<Stream &>().set_state(std::declval<in>())));
static_assert(noexcept(Stream::create(std::declval<Model &>(), std::declval<Stream &>())));

/* A view takes whatever has data() and size(), drops no const, and makes no double a float. */
static_assert(std::is_convertible_v<floats &, clstm::span<float>>);
static_assert(std::is_convertible_v<const floats &, clstm::span<const float>>);
static_assert(std::is_convertible_v<std::array<float, 3> &, clstm::span<const float>>);
static_assert(std::is_convertible_v<float (&)[3], clstm::span<const float>>);
static_assert(std::is_convertible_v<clstm::span<float>, clstm::span<const float>>);
static_assert(!std::is_convertible_v<const floats &, clstm::span<float>>);
static_assert(!std::is_convertible_v<clstm::span<const float>, clstm::span<float>>);
static_assert(!std::is_constructible_v<clstm::span<float>, std::vector<double> &>);

static bool same(const floats &a, const floats &b)
{
    return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

static std::vector<unsigned char> bytes_of(const char *path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

static void steps(const Model &model, clstm_stream *c)
{
    const std::size_t n_in = model.input_size(), n_out = model.output_size(), n = 20;
    Stream made, stream;
    CHECK(!made && Stream::create(model, made) == CLSTM_OK && made);
    stream = std::move(made);
    CHECK(stream && !made);

    floats x(n * n_in), y(n * n_out), expected(n * n_out);
    for (std::size_t i = 0; i < x.size(); i++) x[i] = static_cast<float>(i % 11) / 4 - 1;
    clstm_run(c, n, x.data(), expected.data());
    stream.run(n, x, y);
    CHECK(same(y, expected));

    floats state(model.state_size()), of_c(model.state_size());
    stream.get_state(state);
    clstm_get_state(c, of_c.data());
    CHECK(!state.empty() && same(state, of_c));

    stream.reset();
    for (std::size_t t = 0; t < n; t++)
        stream.step({x.data() + t * n_in, n_in}, {y.data() + t * n_out, n_out});
    CHECK(same(y, expected));

    Stream other;
    CHECK(Stream::create(model, other) == CLSTM_OK);
    other.copy_from(stream);
    stream.reset();
    stream.set_state(state);
    clstm_step(c, x.data(), expected.data());
    other.step({x.data(), n_in}, {y.data(), n_out});
    CHECK(!std::memcmp(y.data(), expected.data(), n_out * sizeof(float)));
    stream.step({x.data(), n_in}, {y.data() + n_out, n_out});
    CHECK(!std::memcmp(y.data() + n_out, expected.data(), n_out * sizeof(float)));

    clstm_batch batch = {};
    batch.n_steps = n, batch.n_batch = 1;
    batch.x = x.data(), batch.x_step = n_in;
    batch.y = y.data(), batch.y_step = n_out;
    CHECK(model.sequence(batch) == CLSTM_OK);
    stream.reset();
    stream.run(n, x, expected);
    CHECK(same(y, expected));
}

static void spoken(const Model &model)
{
    CHECK(model.input_size() == 0 && model.vocabulary() == 5);
    Stream stream;
    CHECK(Stream::create(model, stream) == CLSTM_OK);
    const std::vector<std::int64_t> words = {0, 4, 2};
    floats y(3 * model.output_size()), each(y.size());
    stream.run_tokens(words, y);
    stream.reset();
    for (std::size_t t = 0; t < 3; t++)
        stream.step_token(words[t], {each.data() + t * model.output_size(), model.output_size()});
    CHECK(same(y, each));
}

#if defined(__cpp_exceptions)
template <class F>
static clstm_status thrown(F make, std::string *what = nullptr)
{
    try {
        make();
    } catch (const clstm::Error &error) {
        if (what) *what = error.what();
        return error.status;
    }
    return CLSTM_OK;
}

static void exceptions(char **files)
{
    std::string what;
    CHECK(thrown([] { Model model("/nowhere/m.clstm"); }, &what) == CLSTM_IO);
    CHECK(what.find("/nowhere/m.clstm") != std::string::npos);
    std::vector<unsigned char> bytes = bytes_of(files[1]);
    CHECK(thrown([&] { Model model{clstm::span<const unsigned char>(bytes)}; }) == CLSTM_OK);
    bytes[bytes.size() / 2] ^= 1;
    CHECK(thrown([&] { Model model{clstm::span<const unsigned char>(bytes)}; }, &what) ==
          CLSTM_BAD_FILE);
    CHECK(!what.empty());
    clstm_options options = {};
    options.size = sizeof options;
    options.kernel = "abacus";
    CHECK(thrown([&] { Model model(files[1], &options); }) == CLSTM_BAD_ARGUMENT);
    options.kernel = "scalar";
    CHECK(!std::strcmp(Model(files[1], &options).kernel(), "scalar"));
    const Model reverse(files[2]);
    CHECK(!reverse.streamable());
    CHECK(thrown([&] { Stream stream(reverse); }, &what) == CLSTM_UNSUPPORTED);
    CHECK(what.find("time") != std::string::npos);
    const Model model(files[1]);
    CHECK(thrown([&] { Stream stream(model); }) == CLSTM_OK);
}
#endif

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    char err[256] = "";
    Model model, other;
    CHECK(Model::load("/nowhere/m.clstm", nullptr, model, err) == CLSTM_IO && !model);
    CHECK(std::strstr(err, "/nowhere/m.clstm"));
    CHECK(Model::load(argv[1], nullptr, model, nullptr) == CLSTM_OK && model);
    const clstm_model *kept = model.get();
    CHECK(Model::load("/nowhere/m.clstm", nullptr, model, nullptr) == CLSTM_IO);
    CHECK(model.get() == kept); /* written on CLSTM_OK alone */
    const std::vector<unsigned char> bytes = bytes_of(argv[1]);
    CHECK(Model::load(bytes, nullptr, other, err) == CLSTM_OK);
    CHECK(other.output_size() == model.output_size() && model.streamable());

    clstm_stream *c = nullptr;
    CHECK(clstm_stream_create(model.get(), &c) == CLSTM_OK);
    const Model moved = std::move(model); /* its streams stay good */
    CHECK(!model && moved.get() == kept);
    steps(moved, c);
    clstm_stream_free(c);

    Model reverse;
    Stream none;
    CHECK(Model::load(argv[2], nullptr, reverse, err) == CLSTM_OK && !reverse.streamable());
    CHECK(Stream::create(reverse, none) == CLSTM_UNSUPPORTED && !none);
    Model of_tokens;
    CHECK(Model::load(argv[3], nullptr, of_tokens, err) == CLSTM_OK);
    spoken(of_tokens);
#if defined(__cpp_exceptions)
    exceptions(argv);
#endif
    std::puts("ok");
    return 0;
}
