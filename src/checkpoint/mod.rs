//! Checkpoints: from the bytes of safetensors files and PyTorch archives to the parameters of a model, tensor by tensor.
//!
//! The way through: [`safetensors::header_length`] and [`safetensors::Header::parse`] on the first bytes of each file;
//! [`Plan::new`] checks all headers against a configuration and says which byte ranges to read; an [`Assembler`] takes
//! those bytes in chunks of any size and hands out the parameters in pieces, rows by rows. No file is read here, and no
//! whole tensor is held.

mod assemble;
mod dtype;
mod names;
mod plan;
pub mod pytorch;
pub mod safetensors;

pub use assemble::{Assembler, Piece, assemble};
#[cfg(feature = "tensor")]
pub(crate) use dtype::reserve;
pub use dtype::{Dtype, Q8, to_f16};
pub use names::{
    EncoderChoice, Parameter, hugging_face, is_of_predictor, last_norm, parameters,
    predictor_parameters, probe_parameters,
};
pub use plan::{File, OTHER, PREDICTOR, Plan, Read, Selection, Slot, shards};
pub use safetensors::{Header, TensorData, TensorInfo, header_length};

use std::io::{Seek, SeekFrom};

use crate::{Error, Result};

impl Header {
    /// The header of a file of either kind, by what it begins with: safetensors, or a PyTorch archive.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] for what is neither, or cannot be read.
    pub fn read<S: std::io::Read + Seek>(source: &mut S, size: u64) -> Result<Self> {
        let unreadable =
            |e: std::io::Error| Error::BadCheckpoint(format!("the file cannot be read: {e}"));
        let mut prefix = [0; 8];
        source.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        source.read_exact(&mut prefix).map_err(unreadable)?;
        if !pytorch::is_archive(&prefix) {
            let mut header = vec![0; header_length(prefix, size)?];
            source.read_exact(&mut header).map_err(unreadable)?;
            return Self::parse(&header, size);
        }
        let mut archive = pytorch::Archive::new(size);
        while let Some([begin, end]) = archive.next() {
            let mut bytes = vec![0; (end - begin) as usize];
            source.seek(SeekFrom::Start(begin)).map_err(unreadable)?;
            source.read_exact(&mut bytes).map_err(unreadable)?;
            archive.give(&bytes)?;
        }
        archive.header()
    }
}
