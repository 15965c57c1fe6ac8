//! From streamed bytes to parameters.

use std::io;

use super::{
    Dtype, Plan, Slot,
    dtype::{Decoder, reserve},
};
use crate::{Error, Result};

/// Elements of a [`Piece`]: 1 MiB of f32, the size of the chunks that bytes come in.
const ELEMENTS: usize = 1 << 18;
/// A piece has a multiple of so many rows where its tensor allows it: as many as int8 values fit into a 32-bit word.
const ROWS: usize = 4;

/// Consecutive rows of a parameter; a row is everything but the first axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece<'a> {
    /// The whole parameter: its name, as in the original project, and the length of each of its axes.
    pub slot: &'a Slot,
    /// Index of the first of the rows.
    pub first: usize,
    /// Their elements, row-major.
    pub data: &'a [f32],
}

/// Takes the bytes of a [`Plan`]'s reads, in order and in chunks of any size, and hands out the parameters in pieces of at
/// most 1 MiB (or four rows, where those are longer), each as soon as it is complete. It holds one piece, and nothing else.
/// After an error it is of no further use.
#[derive(Debug)]
pub struct Assembler {
    plan: Plan,
    next: usize,
    current: Option<Current>,
    /// The piece that is being filled. One buffer for all of them: it would leave holes in the wasm heap otherwise.
    piece: Vec<f32>,
    /// Of the rows of the int8 tensor that is read next, or now.
    scales: Vec<f32>,
}

#[derive(Debug)]
struct Current {
    decoder: Decoder,
    bytes_left: u64,
    /// Elements of the read in pieces that were handed out.
    elements: usize,
    /// Elements of the piece that is being filled.
    filled: usize,
}

impl Assembler {
    /// An assembler before the first read of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            next: 0,
            current: None,
            piece: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// What is being assembled.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Announces that the bytes of read `index` follow.
    pub fn begin(&mut self, index: usize) -> Result<()> {
        let Some(read) = self.plan.reads().get(index) else {
            return Err(Error::BadInput(format!(
                "there is no tensor {index} to read"
            )));
        };
        if let Some(current) = &self.current {
            return Err(too_few(&self.plan, self.next, current.bytes_left));
        }
        if index != self.next {
            return Err(Error::BadInput(format!(
                "tensor {index} was announced where tensor {} is due",
                self.next
            )));
        }
        let bytes_left = read.end - read.begin;
        self.current = Some(Current {
            decoder: Decoder::new(read.dtype),
            bytes_left,
            elements: 0,
            filled: 0,
        });
        Ok(())
    }

    /// Takes the next bytes of the current read; gives the pieces that they complete to `sink`, whose errors it passes on.
    pub fn write(&mut self, chunk: &[u8], mut sink: impl FnMut(Piece) -> Result<()>) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Err(Error::BadInput(format!(
                "{} bytes came before their tensor was announced",
                chunk.len()
            )));
        };
        let read = &self.plan.reads()[self.next];
        let slot = &self.plan.slots()[read.slot];
        let Some(bytes_left) = current.bytes_left.checked_sub(chunk.len() as u64) else {
            return Err(Error::BadCheckpoint(format!(
                "tensor {:?} goes on after the {} bytes that its header says",
                read.tensor,
                read.end - read.begin
            )));
        };
        current.bytes_left = bytes_left;
        let width = read.dtype.bits() as usize / 8;
        let length = (read.end - read.begin) as usize / width;
        let row: usize = slot.shape.iter().skip(1).product();
        let whole = match read.is_scales {
            true => length,
            false => (ELEMENTS / row / ROWS).max(1) * ROWS * row,
        };
        let mut chunk = chunk;
        while !chunk.is_empty() {
            let elements = whole.min(length - current.elements);
            if self.piece.len() < elements {
                self.piece = Vec::new();
                self.piece = reserve(elements, &slot.name)?;
                self.piece.resize(elements, 0.0);
            }
            let out = &mut self.piece[current.filled..elements];
            let (head, rest) = chunk.split_at(chunk.len().min(current.decoder.bytes(out.len())));
            chunk = rest;
            let decoded = current.decoder.decode(head, out);
            if read.dtype == Dtype::I8 {
                let first = current.elements + current.filled;
                for (index, value) in out[..decoded].iter_mut().enumerate() {
                    *value *= self.scales[(first + index) / row];
                }
            }
            if let Some(bad) = out[..decoded].iter().position(|value| !value.is_finite()) {
                return Err(Error::BadCheckpoint(format!(
                    "tensor {:?} holds {} at index {}: weights must be finite",
                    read.tensor,
                    out[bad],
                    current.elements + current.filled + bad
                )));
            }
            current.filled += decoded;
            if current.filled == elements {
                let first = (read.offset + current.elements) / row;
                current.elements += elements;
                current.filled = 0;
                if read.is_scales {
                    self.scales.clear();
                    self.scales.extend_from_slice(&self.piece[..elements]);
                    continue;
                }
                sink(Piece {
                    slot,
                    first,
                    data: &self.piece[..elements],
                })?;
            }
        }
        if bytes_left == 0 {
            self.current = None;
            self.next += 1;
        }
        Ok(())
    }

    /// Checks that every read was written.
    pub fn finish(self) -> Result<()> {
        match (&self.current, self.plan.reads().len() - self.next) {
            (Some(current), _) => Err(too_few(&self.plan, self.next, current.bytes_left)),
            (None, 0) => Ok(()),
            (None, missing) => Err(Error::BadCheckpoint(format!(
                "the last {missing} tensors were not read"
            ))),
        }
    }
}

fn too_few(plan: &Plan, index: usize, bytes_left: u64) -> Error {
    Error::BadCheckpoint(format!(
        "tensor {:?} ended {bytes_left} bytes early",
        plan.reads()[index].tensor
    ))
}

/// Runs a whole plan over seekable sources, one per file of the plan, and gives each piece to `sink`.
pub fn assemble<S: io::Read + io::Seek>(
    plan: Plan,
    sources: &mut [S],
    mut sink: impl FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let mut assembler = Assembler::new(plan);
    let mut chunk = vec![0; 1 << 20];
    for index in 0..assembler.plan.reads().len() {
        assembler.begin(index)?;
        let read = &assembler.plan.reads()[index];
        let (file, begin, mut left) = (read.file, read.begin, read.end - read.begin);
        let name = assembler.plan.files()[file].clone();
        let unreadable = |error| Error::BadCheckpoint(format!("{name} cannot be read: {error}"));
        let source = &mut sources[file];
        source
            .seek(io::SeekFrom::Start(begin))
            .map_err(unreadable)?;
        while left > 0 {
            let length = left.min(chunk.len() as u64) as usize;
            source
                .read_exact(&mut chunk[..length])
                .map_err(unreadable)?;
            left -= length as u64;
            assembler.write(&chunk[..length], &mut sink)?;
        }
    }
    assembler.finish()
}
