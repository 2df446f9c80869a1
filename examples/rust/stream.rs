// SPDX-License-Identifier: MIT
//! Streams numbers from standard input through a model, a line of outputs per frame.
//!     rustc -O examples/rust/stream.rs -C link-args="$(clstm config --libs)"
//!     ./stream model.clstm < frames.txt
use std::ffi::{c_void, CStr, CString};
use std::io::{BufRead, Write};
use std::os::raw::{c_char, c_int};

extern "C" {
    // clstm.h, as far as it is needed here
    fn clstm_model_load(
        path: *const c_char,
        options: *const c_void,
        out: *mut *mut c_void,
        err: *mut c_char,
    ) -> c_int;
    fn clstm_model_free(model: *mut c_void);
    fn clstm_input_size(model: *const c_void) -> usize;
    fn clstm_output_size(model: *const c_void) -> usize;
    fn clstm_stream_create(model: *const c_void, out: *mut *mut c_void) -> c_int;
    fn clstm_stream_free(stream: *mut c_void);
    fn clstm_step(stream: *mut c_void, x: *const f32, y: *mut f32);
}

/// Immutable, so any number of threads may have it.
struct Model(*mut c_void);
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Model {
    fn load(path: &str) -> Result<Model, String> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let (mut model, mut err) = (std::ptr::null_mut(), [0 as c_char; 256]);
        let defaults = std::ptr::null();
        match unsafe { clstm_model_load(path.as_ptr(), defaults, &mut model, err.as_mut_ptr()) } {
            0 => Ok(Model(model)),
            _ => Err(unsafe { CStr::from_ptr(err.as_ptr()) }.to_string_lossy().into_owned()),
        }
    }
    fn input_size(&self) -> usize {
        unsafe { clstm_input_size(self.0) }
    }
    fn output_size(&self) -> usize {
        unsafe { clstm_output_size(self.0) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { clstm_model_free(self.0) }
    }
}

/// The state of one sequence. It borrows its model, which therefore outlives it; a step takes it
/// by `&mut`, so one thread at a time: the compiler holds what clstm.h asks for.
struct Stream<'a>(*mut c_void, &'a Model);
unsafe impl Send for Stream<'_> {}

impl<'a> Stream<'a> {
    fn new(model: &'a Model) -> Result<Self, String> {
        let mut stream = std::ptr::null_mut();
        match unsafe { clstm_stream_create(model.0, &mut stream) } {
            0 => Ok(Stream(stream, model)),
            status => Err(format!("no stream: status {status}")),
        }
    }
    fn step(&mut self, x: &[f32], y: &mut [f32]) {
        assert!(x.len() == self.1.input_size() && y.len() == self.1.output_size());
        unsafe { clstm_step(self.0, x.as_ptr(), y.as_mut_ptr()) }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        unsafe { clstm_stream_free(self.0) }
    }
}

fn run(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::load(path)?;
    let mut stream = Stream::new(&model)?;
    let (mut x, mut y) = (vec![0.0; model.input_size()], vec![0.0; model.output_size()]);
    let mut filled = 0;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        for word in line?.split_whitespace() {
            x[filled] = word.parse()?;
            filled += 1;
            if filled == x.len() {
                stream.step(&x, &mut y);
                let row: Vec<String> = y.iter().map(|value| value.to_string()).collect();
                writeln!(out, "{}", row.join(" "))?;
                filled = 0;
            }
        }
    }
    Ok(())
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    if let Err(error) = run(&path) {
        eprintln!("{error}");
        std::process::exit(2);
    }
}
