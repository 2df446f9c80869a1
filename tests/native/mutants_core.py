# SPDX-License-Identifier: MIT
"""The faults outside the kernels: packing, the walk over the program, files, memory, control bits.
See mutants.py for what the columns are."""

from mutants import KERNEL_MUTANTS, Mutant
from mutants_cells import CELL_MUTANTS
from mutants_records import RECORD_MUTANTS
from mutants_steps import STEP_MUTANTS
from mutants_team import TEAM_MUTANTS

CORE_MUTANTS = [
    # ---- packing
    Mutant(
        "packing: rows of the wrong gate",
        "pack.c",
        "lane = g * UNITS + o % UNITS;",
        "lane = (g ^ (G > 1)) * UNITS + o % UNITS;",
        "check_kernels",
    ),
    Mutant(
        "packing: one bias of two",
        "pack.c",
        "m->b2 && !apart ? m->b2[row] : 0.0",
        "0.0",
        "check_kernels",
    ),
    Mutant(
        "packing: U transposed",
        "pack.c",
        "*to = m->u[row * m->n_h + k];",
        "*to = m->u[k * m->n_h + row % m->n_h];",
        "check_kernels",
    ),
    Mutant(
        "packing: scale without shift",
        "pack.c",
        "(float)fma(bias, m->scale[o], m->shift[o])",
        "(float)(bias * m->scale[o])",
        "digest",
    ),
    # ---- the walk
    Mutant(
        "h of an ended sequence not kept",
        "recurrent.c",
        "if (!reverse) keep(cell, f, now, rows_at(f, t + 1), n);",
        "if (!reverse && t + 1 == f->n_steps) keep(cell, f, now, 0, n);",
        "digest",
    ),
    Mutant(
        "h of the reverse direction not kept",
        "recurrent.c",
        "else if (t == 0) keep(cell, f, now, 0, n);",
        "",
        "digest",
    ),
    Mutant(
        "reverse direction starts a step late",
        "recurrent.c",
        "size_t t = reverse ? f->n_steps - 1 - done : done;\n        const size_t count",
        "size_t t = reverse ? f->n_steps - 1 - (done ? done : f->n_steps > 1) : done;\n"
        "        const size_t count",
        "digest",
    ),
    Mutant(
        "reverse direction runs forward",
        "recurrent.c",
        "(struct values){f->direction[d], padded(n_out)}, d);",
        "(struct values){f->direction[d], padded(n_out)}, 0);",
        "digest",
    ),
    Mutant(
        "directions swapped in the output",
        "recurrent.c",
        "memcpy(result.at + r * result.stride + d * n_out,",
        "memcpy(result.at + r * result.stride + (1 - d) * n_out,",
        "digest",
    ),
    Mutant(
        "projection not flushed",
        "step_cell.c",
        "m->kernels->map(MAP_FLUSH, width, row, row, NULL, NULL, clip);",
        "",
        "digest",
    ),
    Mutant(
        "a layer overwrites its input",
        "recurrent.c",
        "{f->layer[k % 2], padded(l->cells",
        "{f->layer[0], padded(l->cells",
        "digest",
    ),
    Mutant(
        "h of a stream's step not kept",
        "recurrent.c",
        "copy_row(state + cell->h_at, result.at, padded(cell->n_out));",
        "",
        "digest",
    ),
    Mutant(
        "a stream's second layer reads the first one's input",
        "recurrent.c",
        "padded(cell->n_out));\n        in = result;",
        "padded(cell->n_out));",
        "digest",
    ),
    Mutant(
        "a stream's step made for the first cell alone",
        "recurrent.c",
        "&f->steps[cell->number]",
        "&f->steps[k]",
        "cells",
    ),
    Mutant(
        "the old c is read but not kept",
        "recurrent.c",
        "if (takes_passes(cell))",
        "if (cell->norm || cell->late.n_blocks || cell->project.n_blocks)",
        "cells",
    ),
    Mutant(
        "a projection left out",
        "recurrent.c",
        "if (takes_passes(cell))",
        "if (cell->norm || cell->late.n_blocks || reads_old_c(cell))",
        "digest",
    ),
    Mutant(
        "totals from the wrong row", "recurrent.c", "from(z, at - first)", "from(z, at)", "digest"
    ),
    Mutant("steps that do not fit", "recurrent.c", "if (rows > f->z_rows) break;", "", "digest"),
    Mutant(
        "h of the step before last",
        "recurrent.c",
        "from(out, t ? f->first[t - 1] : 0)",
        "from(out, t > 1 ? f->first[t - 2] : 0)",
        "digest",
    ),
    Mutant(
        "lengths off by one",
        "sequence.c",
        "length_of(b, w->order[active - 1]) <= t0 + t",
        "length_of(b, w->order[active - 1]) < t0 + t",
        "digest",
    ),
    Mutant(
        "unsorted batch",
        "sequence.c",
        "    sort(w->order, (size_t *)(void *)w->state, b->n_batch, b);\n",
        "",
        "digest",
    ),
    Mutant(
        "outputs past a length left as they were",
        "sequence.c",
        "else memset(to, 0, bytes);",
        "",
        "digest",
    ),
    Mutant(
        "state of the caller's first row for all",
        "sequence.c",
        "b->state + i * m->state_size",
        "b->state",
        "digest",
    ),
    Mutant(
        "state returned in sorted order",
        "sequence.c",
        "store_state(m, b, by_layer, w->order[r], w->state[r]);",
        "store_state(m, b, by_layer, r, w->state[r]);",
        "digest",
    ),
    Mutant(
        "chunk begins at the first step",
        "step.c",
        "        if (x) x += n * m->widths[0];\n",
        "",
        "digest",
    ),
    Mutant(
        "a token past the table",
        "step.c",
        "(uint64_t)tokens[r] < e->n",
        "(uint64_t)tokens[r] <= e->n",
        "digest",
    ),
    Mutant(
        "slot of an alias",
        "frame.c",
        "slot = out->slot[m->ops[i - 1].inputs[0]]",
        "slot = out->slot[0]",
        "digest",
    ),
    Mutant(
        "copy of h alone",
        "stream.c",
        "memmove(to->state, from->state, to->model->state_row * sizeof *to->state);",
        "memmove(to->state, from->state, to->model->state_row / 2 * sizeof *to->state);",
        "digest",
    ),
    Mutant(
        "reset to zeros",
        "stream.c",
        "memcpy(s->state, s->model->initial, s->model->state_row * sizeof *s->state);",
        "memset(s->state, 0, s->model->state_row * sizeof *s->state);",
        "digest",
    ),
    Mutant(
        "h and c exchanged in a state",
        "stream.c",
        "copy(part, j, cells[j].h_at,",
        "copy(part, j, cells[j].c_at,",
        "digest",
    ),
    Mutant(
        "learned c0 forgotten", "model.c", "            if (c0)\n", "            if (0)\n", "digest"
    ),
    Mutant(
        "batch norm without its eps",
        "model.c",
        "sqrt(var[i] + op->params[0])",
        "sqrt(var[i] + 0.1)",
        "digest",
    ),
    Mutant(
        "scaling folded past another reader",
        "model.c",
        "found || !is_affine(&w->ops[j])",
        "!is_affine(&w->ops[j])",
        "digest",
    ),
    # ---- files and memory
    Mutant("checksum not compared", "file.c", "if (crc != h->crc)", "if (0)", "check_file"),
    Mutant(
        "bytes at an odd address read in place",
        "file.c",
        "if ((uintptr_t)data % 8) {",
        "if (0) {",
        "check_file",
    ),
    Mutant(
        "a name outside the names",
        "file.c",
        "(uint64_t)t->name_at + t->name_bytes > w->header->text_bytes",
        "0",
        "check_file",
    ),
    Mutant("rows of a tensor believed", "weights.c", "t->dims[0] != rows ||", "", "check_file"),
    Mutant(
        "columns of a tensor believed",
        "weights.c",
        "(rank == 2 && t->dims[1] != columns)",
        "0",
        "check_file",
    ),
    Mutant(
        "a missing tensor believed",
        "weights.c",
        "if (c->next >= c->op->n_tensors) {",
        "if (0) {",
        "check_file",
    ),
    Mutant(
        "width between layers believed",
        "weights.c",
        "if (width != expected)",
        "if (0)",
        "check_file",
    ),
    Mutant(
        "a slot that does not exist",
        "weights.c",
        "op->inputs[i] > (i < op->n_inputs ? c->index : 0)",
        "0",
        "check_file",
    ),
    Mutant(
        "a certificate not compared",
        "certificate.c",
        "if (!agree(got[i], expected[i]))",
        "if (0)",
        "check_file",
    ),
    Mutant("a failed model not freed", "model.c", "else clstm_model_free(m);", "", "check_memory"),
    Mutant(
        "room of a sequence not freed",
        "sequence.c",
        "clstm_free(carver.memory);",
        "",
        "check_memory",
    ),
    Mutant(
        "no memory noticed too late",
        "model.c",
        "if (status == CLSTM_OK) m->run_rows",
        "m->run_rows",
        "check_memory",
    ),
    Mutant(
        "no memory for a sequence",
        "sequence.c",
        "if (!carver.memory) return CLSTM_NO_MEMORY;",
        "",
        "check_memory",
    ),
    # ---- control bits of the caller
    Mutant(
        "loaded in the caller's rounding",
        "file.c",
        "const struct fpmode mode = fpmode_enter();",
        "const struct fpmode mode = {0};",
        "modes",
    ),
    Mutant(
        "control bits not set",
        "fpmode.h",
        "if (mode.changed) fpmode_set(FPMODE_DEFAULT);",
        "",
        "modes",
    ),
    Mutant(
        "control bits not restored",
        "fpmode.h",
        "if (mode.changed) fpmode_set(mode.found);",
        "",
        "modes",
    ),
]

MUTANTS = (
    KERNEL_MUTANTS + CELL_MUTANTS + STEP_MUTANTS + RECORD_MUTANTS + CORE_MUTANTS + TEAM_MUTANTS
)
