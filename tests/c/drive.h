// SPDX-License-Identifier: MIT
/* One model, driven every way that the header offers, with inputs made of integers alone. */
#ifndef DRIVE_H
#define DRIVE_H

#include "check.h"
#include "clstm.h"

struct drive {
    const char *kernel;
    uint64_t seed; /* of inputs, states, chunks, neighbours                        */
    size_t work;   /* multiply-adds to spend on one way; decides steps and batch   */
    size_t rows;   /* but at least so many rows                                    */
    void (*enter)(void *), (*leave)(void *); /* around every call into clstm, or NULL */
    void *context;
};

/* Loads the image and takes n_batch sequences of n_steps steps one step at a time; then the
 * same ones by clstm_run in chunks, in place, from a copied stream, as whole sequences,
 * batched at ragged lengths and among other neighbours, at odd addresses. Every way must
 * give the same bits: each comparison is a check(). Returns the hash of outputs and states. */
uint64_t drive(const unsigned char *image, size_t size, const struct drive *d);

#endif
