//! From streamed bytes to whole parameters.

use std::io;

use super::{
    Plan,
    dtype::{Decoder, reserve},
};
use crate::{Error, Result};

/// A complete parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Assembled {
    /// Index of its slot in the plan.
    pub slot: usize,
    /// Name, as in the original project.
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: Vec<f32>,
}

/// Takes the bytes of a [`Plan`]'s reads, in order and in chunks of any size, and hands out each parameter as soon as it
/// is complete. It holds parameters that are not complete yet, and nothing else. After an error it is of no further use.
#[derive(Debug)]
pub struct Assembler {
    plan: Plan,
    /// Reads that each slot still waits for.
    waiting: Vec<usize>,
    /// The elements of slots that are being filled; empty for the others.
    filling: Vec<Vec<f32>>,
    next: usize,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    decoder: Decoder,
    bytes_left: u64,
    elements: usize,
}

impl Assembler {
    /// An assembler before the first read of `plan`.
    pub fn new(plan: Plan) -> Self {
        let slots = plan.slots().len();
        let mut waiting = vec![0; slots];
        for read in plan.reads() {
            waiting[read.slot] += 1;
        }
        Self {
            plan,
            waiting,
            filling: vec![Vec::new(); slots],
            next: 0,
            current: None,
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
        let data = &mut self.filling[read.slot];
        if data.is_empty() {
            let slot = &self.plan.slots()[read.slot];
            let length = slot.shape.iter().product();
            *data = reserve(length, &slot.name)?;
            data.resize(length, 0.0);
        }
        let bytes_left = read.end - read.begin;
        self.current = Some(Current {
            decoder: Decoder::new(read.dtype),
            bytes_left,
            elements: 0,
        });
        Ok(())
    }

    /// Takes the next bytes of the current read; returns the parameter that they complete, if they do.
    pub fn write(&mut self, chunk: &[u8]) -> Result<Option<Assembled>> {
        let Some(current) = &mut self.current else {
            return Err(Error::BadInput(format!(
                "{} bytes came before their tensor was announced",
                chunk.len()
            )));
        };
        let read = &self.plan.reads()[self.next];
        let Some(bytes_left) = current.bytes_left.checked_sub(chunk.len() as u64) else {
            return Err(Error::BadCheckpoint(format!(
                "tensor {:?} goes on after the {} bytes that its header says",
                read.tensor,
                read.end - read.begin
            )));
        };
        let out = &mut self.filling[read.slot][read.offset + current.elements..];
        let decoded = current.decoder.decode(chunk, out);
        if let Some(bad) = out[..decoded].iter().position(|value| !value.is_finite()) {
            return Err(Error::BadCheckpoint(format!(
                "tensor {:?} holds {} at index {}: weights must be finite",
                read.tensor,
                out[bad],
                current.elements + bad
            )));
        }
        current.elements += decoded;
        current.bytes_left = bytes_left;
        if bytes_left > 0 {
            return Ok(None);
        }
        let index = read.slot;
        self.current = None;
        self.next += 1;
        self.waiting[index] -= 1;
        if self.waiting[index] > 0 {
            return Ok(None);
        }
        let slot = &self.plan.slots()[index];
        let data = std::mem::take(&mut self.filling[index]);
        Ok(Some(Assembled {
            slot: index,
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            data,
        }))
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

/// Runs a whole plan over seekable sources, one per file of the plan, and gives each parameter to `sink`.
pub fn assemble<S: io::Read + io::Seek>(
    plan: Plan,
    sources: &mut [S],
    mut sink: impl FnMut(Assembled) -> Result<()>,
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
            if let Some(assembled) = assembler.write(&chunk[..length])? {
                sink(assembled)?;
            }
        }
    }
    assembler.finish()
}
