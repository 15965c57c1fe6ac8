//! What is linked to a WebAssembly module: the exports of [`webjepa`], and nothing else. Passes over the whole module are made at the
//! level of optimisation of the crate that is linked, so this one is compiled for speed where the library is compiled for size.

pub use webjepa::*;
