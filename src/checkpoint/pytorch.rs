//! PyTorch's archives (`.pt`, `.pth`, `.pth.tar`): where the tensors of a `torch.save` lie in the file.
//!
//! Such a file is a zip archive without compression that holds a pickle, which says what there is, and one entry for each storage of
//! numbers. The pickle is read by a machine of our own that knows the opcodes of plain data and of tensors: nothing of it is ever
//! executed, and objects of other classes are kept as unknown.

use std::collections::{BTreeMap, HashMap};

use super::{Dtype, Header, TensorInfo};
use crate::{Error, Result};

/// Longest pickle that is read; those of published checkpoints, optimizer included, have below a megabyte.
const MAX_PICKLE_BYTES: u64 = 64 << 20;
/// Longest list of entries of an archive.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// Deepest nesting of what a checkpoint holds.
const MAX_DEPTH: usize = 16;
/// Most values that are looked at, since parts of a pickle can be shared and so repeat without end.
const MAX_VALUES: usize = 1 << 20;

/// The end record of a zip archive, its 64-bit form's locator, and the longest comment.
const TAIL_BYTES: u64 = 22 + 20 + 0xffff;

/// Reads the header of an archive, piece by piece: [`next`](Self::next) says which bytes of the file come next, and
/// [`give`](Self::give) takes them, until the header is complete.
#[derive(Debug)]
pub struct Archive {
    size: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The end of the file.
    Tail,
    /// The 64-bit end record, at so many bytes.
    Tail64(u64),
    /// The directory.
    Directory {
        begin: u64,
        length: u64,
    },
    /// The pickle and what comes before it, of the directory's entries.
    Pickle {
        entries: Vec<Entry>,
        begin: u64,
        end: u64,
    },
    Done(Header),
}

/// An entry of the archive.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    /// Where its local header is.
    begin: u64,
    /// Bytes of it.
    size: u64,
}

/// Whether a file begins as such an archive does.
pub fn is_archive(prefix: &[u8]) -> bool {
    prefix.starts_with(b"PK\x03\x04")
}

impl Archive {
    /// Of a file of so many bytes.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            stage: Stage::Tail,
        }
    }

    /// The bytes that are to be given next, from and to; None when the header is complete.
    pub fn next(&self) -> Option<[u64; 2]> {
        match &self.stage {
            Stage::Tail => Some([self.size.saturating_sub(TAIL_BYTES), self.size]),
            Stage::Tail64(at) => Some([*at, at + 56]),
            Stage::Directory { begin, length } => Some([*begin, begin + length]),
            Stage::Pickle { begin, end, .. } => Some([*begin, *end]),
            Stage::Done(_) => None,
        }
    }

    /// Takes the bytes that [`next`](Self::next) asked for.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] for what is no such archive, [`Error::Unsupported`] for a form of it that PyTorch does not write.
    pub fn give(&mut self, bytes: &[u8]) -> Result<()> {
        let Some([begin, end]) = self.next() else {
            return Err(Error::Internal("the archive was read to its end".into()));
        };
        if bytes.len() as u64 != end - begin {
            return Err(bad("it ends early"));
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Tail) {
            Stage::Tail => self.tail(bytes)?,
            Stage::Tail64(_) => self.tail64(bytes)?,
            Stage::Directory { begin, .. } => self.directory(bytes, begin)?,
            Stage::Pickle { entries, begin, .. } => {
                Stage::Done(header(&entries, bytes, begin, self.size)?)
            }
            done @ Stage::Done(_) => done,
        };
        Ok(())
    }

    /// The header, once it is complete: tensors by the path of their keys, as in `encoder.module.norm.weight`.
    ///
    /// # Errors
    /// [`Error::Internal`] before.
    pub fn header(self) -> Result<Header> {
        match self.stage {
            Stage::Done(header) => Ok(header),
            _ => Err(Error::Internal(
                "the archive was not read to its end".into(),
            )),
        }
    }

    fn tail(&self, bytes: &[u8]) -> Result<Stage> {
        let end = bytes
            .windows(4)
            .rposition(|window| window == b"PK\x05\x06")
            .ok_or_else(|| bad("it is a zip archive without an end, so it was cut off"))?;
        let record = Fields(&bytes[end..]);
        let (length, begin) = (record.u32(12)?, record.u32(16)?);
        let locator = end.checked_sub(20).map(|at| Fields(&bytes[at..]));
        match locator {
            Some(locator) if locator.0.starts_with(b"PK\x06\x07") => {
                let at = locator.u64(8)?;
                match at.checked_add(56) {
                    Some(end) if end <= self.size => Ok(Stage::Tail64(at)),
                    _ => Err(bad("its end record lies beyond it")),
                }
            }
            _ => self.directory_at(u64::from(begin), u64::from(length)),
        }
    }

    fn tail64(&self, bytes: &[u8]) -> Result<Stage> {
        if !bytes.starts_with(b"PK\x06\x06") {
            return Err(bad("its 64-bit end record is damaged"));
        }
        let record = Fields(bytes);
        self.directory_at(record.u64(48)?, record.u64(40)?)
    }

    fn directory_at(&self, begin: u64, length: u64) -> Result<Stage> {
        if length > MAX_DIRECTORY_BYTES {
            return Err(bad(format!("its directory would have {length} bytes")));
        }
        match begin.checked_add(length) {
            Some(end) if end <= self.size => Ok(Stage::Directory { begin, length }),
            _ => Err(bad("its directory lies beyond it")),
        }
    }

    fn directory(&self, bytes: &[u8], begin: u64) -> Result<Stage> {
        let mut entries = Vec::new();
        let mut rest = bytes;
        while rest.starts_with(b"PK\x01\x02") {
            let record = Fields(rest);
            let (method, name, extra, comment) = (
                record.u16(10)?,
                record.u16(28)?,
                record.u16(30)?,
                record.u16(32)?,
            );
            let (name, extra) = (usize::from(name), usize::from(extra));
            let label = String::from_utf8_lossy(record.slice(46, name)?).into_owned();
            let mut sizes = [u64::from(record.u32(24)?), u64::from(record.u32(20)?)];
            let mut at = u64::from(record.u32(42)?);
            // The 64-bit numbers that do not fit, in this order.
            let mut wide = Fields(extra_field(record.slice(46 + name, extra)?, 1));
            for number in sizes.iter_mut().chain([&mut at]) {
                if *number == u64::from(u32::MAX) && !wide.0.is_empty() {
                    *number = wide.u64(0)?;
                    wide = Fields(&wide.0[8..]);
                }
            }
            if method != 0 || sizes[0] != sizes[1] {
                return Err(Error::Unsupported(format!(
                    "the entry {label:?} of the archive is compressed: PyTorch does not write such files"
                )));
            }
            if at.checked_add(sizes[0]).is_none_or(|end| end > begin) {
                return Err(bad(format!("its entry {label:?} lies beyond its data")));
            }
            entries.push(Entry {
                name: label,
                begin: at,
                size: sizes[0],
            });
            rest = rest
                .get(46 + name + extra + usize::from(comment)..)
                .unwrap_or_default();
        }
        entries.sort_by_key(|entry| entry.begin);
        // What an entry and its header may take ends where the next begins; the directory follows the last.
        let starts: Vec<u64> = entries.iter().map(|entry| entry.begin).collect();
        let pickle = entries
            .iter()
            .position(|entry| entry.name.ends_with("/data.pkl") || entry.name == "data.pkl")
            .ok_or_else(|| {
                bad("it is a zip archive without data.pkl, so torch.save did not write it")
            })?;
        let stop = starts.get(pickle + 1).copied().unwrap_or(begin);
        if entries[pickle].size > MAX_PICKLE_BYTES {
            return Err(bad("its data.pkl is longer than any checkpoint's"));
        }
        let start = starts[pickle];
        if stop - start > MAX_PICKLE_BYTES + (1 << 20) {
            return Err(bad("there is a gap behind its data.pkl"));
        }
        // The directory itself, as the end of the last entry.
        entries.push(Entry {
            name: String::new(),
            begin,
            size: 0,
        });
        Ok(Stage::Pickle {
            entries,
            begin: start,
            end: stop,
        })
    }
}

/// The field of a number among the extra fields of an entry; empty where there is none.
fn extra_field(mut extra: &[u8], wanted: u16) -> &[u8] {
    while let [a, b, c, d, rest @ ..] = extra {
        let (id, length) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
        let length = usize::from(length).min(rest.len());
        if id == wanted {
            return &rest[..length];
        }
        extra = &rest[length..];
    }
    &[]
}

/// Little-endian numbers at places of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn slice(&self, at: usize, length: usize) -> Result<&'a [u8]> {
        at.checked_add(length)
            .and_then(|end| self.0.get(at..end))
            .ok_or_else(|| bad("a record of it is cut off"))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let slice = self.slice(at, N)?;
        slice
            .try_into()
            .map_err(|_| bad("a record of it is cut off"))
    }

    fn u16(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::BadCheckpoint(format!(
        "the file cannot be read as a PyTorch archive: {}",
        why.into()
    ))
}

/// The tensors that the pickle names, with their places.
fn header(entries: &[Entry], bytes: &[u8], begin: u64, file: u64) -> Result<Header> {
    let (own, data) = entries
        .iter()
        .find(|entry| entry.begin == begin)
        .zip(Fields(bytes).slice(0, 30).ok())
        .ok_or_else(|| bad("its data.pkl has no header"))?;
    if !data.starts_with(b"PK\x03\x04") {
        return Err(bad("its data.pkl has no header"));
    }
    let start = 30 + usize::from(Fields(bytes).u16(26)?) + usize::from(Fields(bytes).u16(28)?);
    let pickle = Fields(bytes).slice(start, own.size as usize)?;
    let folder = own.name.trim_end_matches("data.pkl");
    let storages = entries.windows(2).filter_map(|pair| {
        let key = pair[0].name.strip_prefix(folder)?.strip_prefix("data/")?;
        Some((key.to_owned(), (&pair[0], pair[1].begin)))
    });
    let storages: HashMap<String, (&Entry, u64)> = storages.collect();
    let mut tensors = Vec::new();
    for (name, tensor) in tensors_of(pickle)? {
        let info = tensor.info(name, &storages, file)?;
        tensors.push(info);
    }
    tensors.sort_by(|a, b| (a.begin, &a.name).cmp(&(b.begin, &b.name)));
    Ok(Header {
        tensors,
        data_start: 0,
        metadata: BTreeMap::new(),
    })
}

/// A tensor as a pickle describes it.
#[derive(Clone, Debug)]
struct Tensor {
    storage: String,
    dtype: Dtype,
    offset: u64,
    shape: Vec<usize>,
    strides: Vec<i64>,
}

impl Tensor {
    fn info(
        self,
        name: String,
        storages: &HashMap<String, (&Entry, u64)>,
        file: u64,
    ) -> Result<TensorInfo> {
        let &(entry, next) = storages
            .get(&self.storage)
            .ok_or_else(|| bad(format!("the numbers of {name:?} are not in it")))?;
        let elements = self
            .shape
            .iter()
            .try_fold(1u64, |n, &side| n.checked_mul(side as u64));
        let width = self.dtype.bits() / 8;
        let bytes = elements.and_then(|n| n.checked_mul(width));
        let offset = self.offset.checked_mul(width);
        let (Some(bytes), Some(offset)) = (bytes, offset) else {
            return Err(bad(format!("the size of {name:?} is too large")));
        };
        if offset.checked_add(bytes).is_none_or(|end| end > entry.size) {
            return Err(bad(format!("{name:?} is larger than its storage")));
        }
        let begin = data_of(entry, next)? + offset;
        if begin + bytes > file {
            return Err(bad(format!("{name:?} lies beyond the file")));
        }
        // In any other order than row by row its bytes cannot be taken as they are.
        let dtype = match self.is_contiguous() {
            true => self.dtype,
            false => Dtype::Other {
                name: "not contiguous",
                bits: self.dtype.bits(),
            },
        };
        Ok(TensorInfo {
            name,
            dtype,
            shape: self.shape,
            begin,
            end: begin + bytes,
        })
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1i64;
        for (&side, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if side != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(side as i64);
        }
        self.shape.len() == self.strides.len()
    }
}

/// Where the data of an entry begins: PyTorch puts it at a multiple of 64 bytes, by filling the entry's header. Behind it comes at most a
/// record of its checksum and sizes.
fn data_of(entry: &Entry, next: u64) -> Result<u64> {
    const ALIGNMENT: u64 = 64;
    let least = entry.begin + 30 + entry.name.len() as u64;
    [0, 16, 24]
        .into_iter()
        .filter_map(|record| next.checked_sub(entry.size + record))
        .find(|start| start.is_multiple_of(ALIGNMENT) && *start >= least)
        .ok_or_else(|| {
            Error::Unsupported(format!(
                "the entry {:?} of the archive is not where PyTorch 1.6 and later put it: save the checkpoint anew",
                entry.name
            ))
        })
}

/// A value of a pickle. Containers are kept beside, by number, as a pickle fills them after it has referred to them.
#[derive(Clone, Debug)]
enum Value {
    Mark,
    Int(i64),
    Text(String),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Class(String),
    Storage {
        key: String,
        dtype: Option<Dtype>,
    },
    Tensor(usize),
    /// Anything that is no data of ours.
    Unknown,
}

#[derive(Default)]
struct Machine {
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    tensors: Vec<Tensor>,
}

/// The tensors of a pickle by the path of their keys.
fn tensors_of(pickle: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let mut machine = Machine::default();
    let root = machine.run(pickle)?;
    let mut found = Vec::new();
    let mut left = MAX_VALUES;
    machine.walk(&root, String::new(), 0, &mut left, &mut found)?;
    Ok(found)
}

impl Machine {
    fn run(&mut self, pickle: &[u8]) -> Result<Value> {
        let mut at = 0;
        let mut take = |length: usize| -> Result<&[u8]> {
            let slice = Fields(pickle).slice(at, length)?;
            at += length;
            Ok(slice)
        };
        let number = |bytes: &[u8]| -> u64 {
            bytes
                .iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        loop {
            let opcode = take(1)?[0];
            match opcode {
                // Protocol and frame: nothing to do.
                0x80 => _ = take(1)?,
                0x95 => _ = take(8)?,
                b'.' => return self.pop(),
                b'(' => self.stack.push(Value::Mark),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.since_mark()?,
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Unknown),
                b'K' => {
                    let value = i64::from(take(1)?[0]);
                    self.stack.push(Value::Int(value));
                }
                b'M' => {
                    let value = number(take(2)?) as i64;
                    self.stack.push(Value::Int(value));
                }
                b'J' => {
                    let value = i64::from(number(take(4)?) as u32 as i32);
                    self.stack.push(Value::Int(value));
                }
                0x8a => {
                    let length = usize::from(take(1)?[0]);
                    let bytes = take(length)?;
                    self.stack.push(long(bytes));
                }
                b'G' => {
                    take(8)?;
                    self.stack.push(Value::Unknown);
                }
                b'X' | 0x8c | 0x8d => {
                    let width = match opcode {
                        b'X' => 4,
                        0x8c => 1,
                        _ => 8,
                    };
                    let length = usize::try_from(number(take(width)?))
                        .map_err(|_| bad("a text of it is too long"))?;
                    let text = String::from_utf8_lossy(take(length)?).into_owned();
                    self.stack.push(Value::Text(text));
                }
                // Bytes, short and long, and texts of protocol 1.
                b'C' | b'U' | b'B' | b'T' | 0x8e => {
                    let width = match opcode {
                        b'C' | b'U' => 1,
                        b'B' | b'T' => 4,
                        _ => 8,
                    };
                    let length = usize::try_from(number(take(width)?))
                        .map_err(|_| bad("bytes of it are too long"))?;
                    take(length)?;
                    self.stack.push(Value::Unknown);
                }
                b'c' => {
                    let mut line = || -> Result<String> {
                        let mut text = Vec::new();
                        loop {
                            match take(1)?[0] {
                                b'\n' => return Ok(String::from_utf8_lossy(&text).into_owned()),
                                byte => text.push(byte),
                            }
                        }
                    };
                    let class = format!("{}.{}", line()?, line()?);
                    self.stack.push(Value::Class(class));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    self.stack.push(match (module, name) {
                        (Value::Text(module), Value::Text(name)) => {
                            Value::Class(format!("{module}.{name}"))
                        }
                        _ => Value::Unknown,
                    });
                }
                b')' => self.push_tuple(Vec::new()),
                b't' => {
                    let items = self.since_mark()?;
                    self.push_tuple(items);
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let from = self.stack.len().checked_sub(count);
                    let from = from.ok_or_else(|| bad("its pickle takes what is not there"))?;
                    let items = self.stack.split_off(from);
                    self.push_tuple(items);
                }
                b']' | 0x8f => {
                    self.sequences.push(Vec::new());
                    self.stack.push(Value::List(self.sequences.len() - 1));
                }
                b'l' => {
                    let items = self.since_mark()?;
                    self.sequences.push(items);
                    self.stack.push(Value::List(self.sequences.len() - 1));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item]);
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?;
                    self.append(items);
                }
                b'}' => self.push_dict(Vec::new()),
                b'd' => {
                    let items = self.since_mark()?;
                    self.push_dict(pairs(items));
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![(key, value)]);
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.insert(pairs(items));
                }
                b'q' | b'r' => {
                    let width = if opcode == b'q' { 1 } else { 4 };
                    let place = number(take(width)?);
                    self.remember(place)?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' | b'j' => {
                    let width = if opcode == b'h' { 1 } else { 4 };
                    let place = number(take(width)?);
                    let value = self.memo.get(&place).cloned();
                    let value =
                        value.ok_or_else(|| bad("its pickle recalls what it has not stored"))?;
                    self.stack.push(value);
                }
                b'2' => {
                    let value = self.stack.last().cloned();
                    let value = value.ok_or_else(|| bad("its pickle takes what is not there"))?;
                    self.stack.push(value);
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id);
                    self.stack.push(storage);
                }
                b'R' | 0x81 => {
                    let (arguments, class) = (self.pop()?, self.pop()?);
                    let value = self.made(&class, &arguments)?;
                    self.stack.push(value);
                }
                0x92 => {
                    self.pop()?;
                    self.pop()?;
                    self.pop()?;
                    self.stack.push(Value::Unknown);
                }
                // The state of an object: of an ordered dict its metadata, of others nothing of ours.
                b'b' => _ = self.pop()?,
                other => {
                    return Err(Error::Unsupported(format!(
                        "the pickle of the archive has the opcode {other:#04x}, which no checkpoint needs: save the state dict alone"
                    )));
                }
            }
        }
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack
            .pop()
            .ok_or_else(|| bad("its pickle takes what is not there"))
    }

    fn since_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark))
            .ok_or_else(|| bad("its pickle has no mark"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push_tuple(&mut self, items: Vec<Value>) {
        self.sequences.push(items);
        self.stack.push(Value::Tuple(self.sequences.len() - 1));
    }

    fn push_dict(&mut self, items: Vec<(Value, Value)>) {
        self.dicts.push(items);
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    fn append(&mut self, items: Vec<Value>) {
        if let Some(&Value::List(list)) = self.stack.last() {
            self.sequences[list].extend(items);
        }
    }

    fn insert(&mut self, items: Vec<(Value, Value)>) {
        if let Some(&Value::Dict(dict)) = self.stack.last() {
            self.dicts[dict].extend(items);
        }
    }

    fn remember(&mut self, place: u64) -> Result<()> {
        let value = self
            .stack
            .last()
            .cloned()
            .ok_or_else(|| bad("its pickle stores what is not there"))?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn items(&self, value: &Value) -> &[Value] {
        match *value {
            Value::Tuple(items) | Value::List(items) => &self.sequences[items],
            _ => &[],
        }
    }

    /// `("storage", class, key, device, elements)`.
    fn storage(&self, id: &Value) -> Value {
        let [Value::Text(kind), Value::Class(class), Value::Text(key), ..] = self.items(id) else {
            return Value::Unknown;
        };
        match kind.as_str() {
            "storage" => Value::Storage {
                key: key.clone(),
                dtype: storage_type(class),
            },
            _ => Value::Unknown,
        }
    }

    /// What a call of a class or function would give, where it is one of those that tensors and dicts are made with.
    fn made(&mut self, class: &Value, arguments: &Value) -> Result<Value> {
        let Value::Class(class) = class else {
            return Ok(Value::Unknown);
        };
        match class.as_str() {
            "collections.OrderedDict" | "builtins.dict" => {
                self.dicts.push(Vec::new());
                Ok(Value::Dict(self.dicts.len() - 1))
            }
            "torch._utils._rebuild_parameter" => {
                let tensor = self.items(arguments).first();
                Ok(tensor.cloned().unwrap_or(Value::Unknown))
            }
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                let [
                    Value::Storage { key, dtype },
                    Value::Int(offset),
                    shape,
                    strides,
                    ..,
                ] = self.items(arguments)
                else {
                    return Ok(Value::Unknown);
                };
                let Some(dtype) = *dtype else {
                    return Ok(Value::Unknown);
                };
                let whole = |value: &Value| match value {
                    Value::Int(value) => Some(*value),
                    _ => None,
                };
                let numbers = |value: &Value| -> Option<Vec<i64>> {
                    self.items(value).iter().map(whole).collect()
                };
                let side = |side: i64| usize::try_from(side).ok();
                let shape: Option<Vec<usize>> =
                    numbers(shape).and_then(|shape| shape.into_iter().map(side).collect());
                let (Some(shape), Some(strides), Ok(offset)) =
                    (shape, numbers(strides), u64::try_from(*offset))
                else {
                    return Err(bad("a tensor of it has no size"));
                };
                self.tensors.push(Tensor {
                    storage: key.clone(),
                    dtype,
                    offset,
                    shape,
                    strides,
                });
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Ok(Value::Unknown),
        }
    }

    /// Collects the tensors below `value`, whose keys so far are `path`.
    fn walk(
        &self,
        value: &Value,
        path: String,
        depth: usize,
        left: &mut usize,
        found: &mut Vec<(String, Tensor)>,
    ) -> Result<()> {
        let more = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH);
        *left = more.ok_or_else(|| bad("it nests too much, or repeats itself"))?;
        let below = |key: &str| match path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        match *value {
            Value::Tensor(tensor) => found.push((path, self.tensors[tensor].clone())),
            Value::Dict(dict) => {
                for (key, value) in &self.dicts[dict] {
                    let key = match key {
                        Value::Text(key) => below(key),
                        Value::Int(key) => below(&key.to_string()),
                        _ => continue,
                    };
                    self.walk(value, key, depth + 1, left, found)?;
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (i, value) in self.sequences[items].iter().enumerate() {
                    self.walk(value, below(&i.to_string()), depth + 1, left, found)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A whole number of any length, little-endian in two's complement; unknown beyond 64 bits.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Unknown;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}

fn storage_type(class: &str) -> Option<Dtype> {
    let name = match class.strip_prefix("torch.")? {
        "FloatStorage" => "F32",
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "DoubleStorage" => "F64",
        "LongStorage" => "I64",
        "IntStorage" => "I32",
        "ShortStorage" => "I16",
        "CharStorage" => "I8",
        "ByteStorage" => "U8",
        "BoolStorage" => "BOOL",
        _ => return None,
    };
    Dtype::from_name(name)
}
