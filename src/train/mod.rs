//! Training: what a run is, its networks and its schedules. One step at a time, pulled by the caller.

#[cfg(feature = "tensor")]
pub mod init;
#[cfg(feature = "tensor")]
pub mod lora;
#[cfg(feature = "tensor")]
pub mod network;
#[cfg(feature = "tensor")]
pub mod probe;
#[cfg(feature = "tensor")]
pub mod projector;
#[cfg(feature = "tensor")]
pub mod recipe;
#[cfg(feature = "tensor")]
pub mod save;
pub mod schedule;
#[cfg(feature = "tensor")]
pub mod trainer;
