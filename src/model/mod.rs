//! One file per published system; each composes parts of [`nn`](crate::nn) and says what differs.

pub mod ijepa;
