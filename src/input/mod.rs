//! From a picture to the numbers that a model was trained on: resize, crop, rescale, normalise. No tensor library.
//!
//! - [`augment`]: random views of a picture, for training.
//! - [`processor`]: what a checkpoint's `preprocessor_config.json` asks for, applied to a picture.
//! - [`resize`]: resampling with the arithmetic of the libraries that published models were fed by.
//! - [`image`]: the borrowed picture that goes in.

pub mod augment;
pub mod image;
pub mod processor;
pub mod resize;
mod retouch;

pub use augment::{Augmentation, Augmenter};
pub use image::{ImageView, MAX_OUTPUT_SIDE, MAX_SIDE, Pixels};
pub use processor::{Processor, evaluated_edge, file_name};
