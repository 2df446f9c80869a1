// SPDX-License-Identifier: MIT
// Streams numbers from standard input through a model, a line of outputs per frame.
//     c++ -std=c++17 -O2 examples/cpp/stream.cpp $(clstm config --cflags --libs) -o stream
//     ./stream model.clstm < frames.txt
#include <clstm.hpp>
#include <cstdio>
#include <iostream>
#include <vector>

static void run(const char *path)
{
    clstm::Model model(path);
    clstm::Stream stream(model); // the model must outlive it
    std::vector<float> x(model.input_size()), y(model.output_size());
    for (;;) {
        for (float &value : x)
            if (!(std::cin >> value)) return;
        stream.step(x, y); // cannot fail, allocates nothing
        for (std::size_t i = 0; i < y.size(); i++) std::printf("%s%.9g", i ? " " : "", y[i]);
        std::puts("");
    }
}

int main(int argc, char **argv)
{
    try {
        if (argc != 2) throw std::runtime_error("usage: stream FILE");
        run(argv[1]);
    } catch (const std::exception &error) { // clstm::Error is one, and has the status too
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
