//! The loops in which the CPU backend spends its time, on slices and without tensors.
//!
//! They are a crate of their own because cargo sets the level of optimisation by crate: in the module for browsers these are
//! compiled for speed, and everything else for size. Nothing here is generic, functions are taken by those that share work only, and
//! nothing with a loop may be inlined: what is instantiated in another crate, or becomes a part of its functions, is compiled as that
//! crate is.

pub mod attention;
pub mod elements;
pub mod exp;
pub mod gelu;
pub mod gemm;
mod lanes;
pub mod rows;
pub mod threads;
