//! The safetensors container: 8 bytes of header length (little-endian), a JSON header, then the bytes of the tensors.
//!
//! A header is parsed from its own bytes alone, since the rest of the file is only ever streamed, and with 64-bit offsets,
//! since files larger than 4 GiB are read where `usize` has 32 bits. The published crate does neither.

use std::{collections::BTreeMap, collections::HashSet, fmt, io};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};

use super::Dtype;
use crate::{Error, Result};

/// Bytes before the header.
pub const PREFIX_BYTES: usize = 8;
/// Largest accepted header, as in the published reader.
pub const MAX_HEADER_BYTES: usize = 100_000_000;

const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the data.
    pub begin: u64,
    /// Byte after the last, counted from the start of the data.
    pub end: u64,
}

/// A parsed and checked header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tensors in file order; they follow each other without gaps and fill the file.
    pub tensors: Vec<TensorInfo>,
    /// Where in the file the data starts.
    pub data_start: u64,
    /// Free-form notes of whoever wrote the file.
    pub metadata: BTreeMap<String, String>,
}

/// Length in bytes of the header that follows the first 8 bytes of a file of `file_size` bytes.
pub fn header_length(prefix: [u8; PREFIX_BYTES], file_size: u64) -> Result<usize> {
    let length = u64::from_le_bytes(prefix);
    let available = file_size.saturating_sub(PREFIX_BYTES as u64);
    // "{}" is the shortest header.
    if length >= 2 && length <= available && length <= MAX_HEADER_BYTES as u64 {
        return Ok(length as usize);
    }
    let reason = match &prefix {
        [0x80, 2, ..] => {
            "it is a PyTorch file of before version 1.6: load it there and save it anew".into()
        }
        [b'P', b'K', 3, 4, ..] => "it is a zip archive, as PyTorch writes them".into(),
        b"version " => "it is a Git LFS pointer: fetch the file that it stands for".into(),
        [b'<', ..] => "it is a web page".into(),
        _ if length < 2 => format!("its header is {length} bytes long"),
        _ if length > available => {
            format!(
                "its header of {length} bytes would end beyond the {file_size} bytes of the file"
            )
        }
        _ => format!(
            "its header of {length} bytes is longer than the {MAX_HEADER_BYTES} that are possible"
        ),
    };
    Err(Error::BadCheckpoint(format!(
        "this is not a safetensors file: {reason}"
    )))
}

impl Header {
    /// Parses the header of a whole file in memory.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`].
    pub fn of(file: &[u8]) -> Result<Self> {
        let Some((prefix, rest)) = file.split_first_chunk() else {
            return Err(Error::BadCheckpoint(
                "the file is shorter than a safetensors file can be".into(),
            ));
        };
        let length = header_length(*prefix, file.len() as u64)?;
        Self::parse(&rest[..length], file.len() as u64)
    }

    /// Parses the JSON header (without the 8 bytes before it) of a file of `file_size` bytes.
    pub fn parse(json: &[u8], file_size: u64) -> Result<Self> {
        let text = std::str::from_utf8(json).map_err(|error| {
            Error::BadCheckpoint(format!("the safetensors header is not UTF-8: {error}"))
        })?;
        // The format forbids white space before the brace, though not after the last one.
        if !text.starts_with('{') {
            return Err(Error::BadCheckpoint(
                "the safetensors header is not a JSON object".into(),
            ));
        }
        let Entries {
            mut tensors,
            metadata,
        } = serde_json::from_str(text).map_err(|error| {
            Error::BadCheckpoint(format!("the safetensors header is not readable: {error}"))
        })?;
        tensors.sort_unstable_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));

        let data_start = PREFIX_BYTES as u64 + json.len() as u64;
        let available = file_size.checked_sub(data_start).ok_or_else(|| {
            Error::BadCheckpoint(format!(
                "the file of {file_size} bytes ends within its safetensors header"
            ))
        })?;
        let mut end = 0;
        for tensor in &tensors {
            check_extent(tensor)?;
            if tensor.begin != end {
                let what = if tensor.begin < end {
                    "overlaps the tensor"
                } else {
                    "leaves a gap after the bytes"
                };
                return Err(Error::BadCheckpoint(format!(
                    "tensor {:?} at bytes {}..{} {what} before it, which end at {end}",
                    tensor.name, tensor.begin, tensor.end
                )));
            }
            end = tensor.end;
        }
        match end.cmp(&available) {
            std::cmp::Ordering::Equal => Ok(Self {
                tensors,
                data_start,
                metadata,
            }),
            std::cmp::Ordering::Greater => Err(Error::BadCheckpoint(format!(
                "the file is cut short: its tensors need {end} bytes, but {available} follow the header"
            ))),
            std::cmp::Ordering::Less => Err(Error::BadCheckpoint(format!(
                "the file goes on for {} bytes after its last tensor",
                available - end
            ))),
        }
    }
}

fn check_extent(tensor: &TensorInfo) -> Result<()> {
    let TensorInfo {
        name,
        dtype,
        shape,
        begin,
        end,
    } = tensor;
    let Some(stored) = end.checked_sub(*begin) else {
        return Err(Error::BadCheckpoint(format!(
            "tensor {name:?} ends at byte {end}, before it begins at {begin}"
        )));
    };
    let bits = shape
        .iter()
        .try_fold(dtype.bits(), |bits, &side| bits.checked_mul(side as u64));
    match bits {
        Some(bits) if bits.is_multiple_of(8) && bits / 8 == stored => Ok(()),
        Some(bits) => Err(Error::BadCheckpoint(format!(
            "tensor {name:?} has {stored} bytes, but {} of shape {shape:?} needs {}",
            dtype.name(),
            bits.div_ceil(8)
        ))),
        None => Err(Error::BadCheckpoint(format!(
            "the shape {shape:?} of tensor {name:?} is too large"
        ))),
    }
}

/// A header as its JSON has it. Deserialised by hand because a map would keep only the last of two equal names.
struct Entries {
    tensors: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> de::Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: de::MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Entries, A::Error> {
        use de::Error as _;
        let mut entries = Entries {
            tensors: Vec::new(),
            metadata: BTreeMap::new(),
        };
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("{name:?} is there twice")));
            }
            if name == METADATA {
                entries.metadata = map.next_value()?;
                continue;
            }
            // Through a JSON object, since an array of three would do for `Entry` itself.
            let entry = map.next_value::<Map<String, Value>>()?;
            let entry = Entry::deserialize(Value::Object(entry))
                .map_err(|error| A::Error::custom(format_args!("tensor {name:?}: {error}")))?;
            let dtype = Dtype::from_name(&entry.dtype).ok_or_else(|| {
                A::Error::custom(format_args!(
                    "tensor {name:?} has the unknown type {:?}",
                    entry.dtype
                ))
            })?;
            let [begin, end] = entry.data_offsets;
            entries.tensors.push(TensorInfo {
                name,
                dtype,
                shape: entry.shape,
                begin,
                end,
            });
        }
        Ok(entries)
    }
}

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Length of each axis.
    pub shape: &'a [usize],
    /// Its elements, little-endian and row-major.
    pub data: &'a [u8],
}

/// Writes a file with the tensors in the order given.
pub fn write(
    out: &mut impl io::Write,
    tensors: &[TensorData<'_>],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), json!(metadata));
    }
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.data.len() as u64;
        let entry = json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name.into(), entry);
        begin = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The data starts at a multiple of 8, for readers that map the file into memory.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors
        .iter()
        .try_for_each(|tensor| out.write_all(tensor.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a file with `data` bytes after it.
    fn parse(json: &str, data: u64) -> Result<Header> {
        Header::parse(json.as_bytes(), (PREFIX_BYTES + json.len()) as u64 + data)
    }

    fn refused(json: &str, data: u64, said: &str) {
        let error = parse(json, data).unwrap_err();
        assert_eq!(error.code(), "bad-checkpoint");
        assert!(error.to_string().contains(said), "{json}: {error}");
    }

    #[test]
    fn headers_are_read_in_file_order() {
        let json = r#"{"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{"format":"pt"},
            "z":{"dtype":"I64","shape":[0,7],"data_offsets":[24,24]},"a":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}  "#;
        let header = parse(json, 26).unwrap();
        let names: Vec<_> = header
            .tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(names, ["b", "z", "a"]);
        assert_eq!(header.data_start, 8 + json.len() as u64);
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(
            (header.tensors[2].dtype, header.tensors[2].begin),
            (Dtype::BF16, 24)
        );
        assert!(parse("{}", 0).unwrap().tensors.is_empty());
    }

    #[test]
    fn offsets_beyond_32_bits_are_read() {
        let json = r#"{"a":{"dtype":"U8","shape":[3000000000],"data_offsets":[0,3000000000]},
            "b":{"dtype":"U8","shape":[3000000000],"data_offsets":[3000000000,6000000000]}}"#;
        assert_eq!(
            parse(json, 6_000_000_000).unwrap().tensors[1].end,
            6_000_000_000
        );
    }

    #[test]
    fn impossible_header_lengths_are_refused() {
        let length = |prefix: [u8; 8], size| header_length(prefix, size);
        assert_eq!(length(10u64.to_le_bytes(), 18), Ok(10));
        for (prefix, size, said) in [
            (10u64.to_le_bytes(), 17, "beyond"),
            (10u64.to_le_bytes(), 3, "beyond"),
            (u64::MAX.to_le_bytes(), u64::MAX, "beyond"),
            (100_000_001u64.to_le_bytes(), u64::MAX, "longer"),
            (0u64.to_le_bytes(), 100, "0 bytes"),
            (*b"PK\x03\x04\0\0\x08\x08", 1 << 30, "PyTorch"),
            (*b"\x80\x02\x8a\x0al\xfc\x9cF", 1 << 30, "PyTorch"),
            (*b"version ", 130, "Git LFS"),
            (*b"<!DOCTYP", 5000, "web page"),
        ] {
            let error = length(prefix, size).unwrap_err();
            assert_eq!(error.code(), "bad-checkpoint");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn unreadable_headers_are_refused() {
        let nested = format!(
            r#"{{"a":{}{}}}"#,
            r#"{"x":"#.repeat(50_000),
            "}".repeat(50_000)
        );
        for (json, said) in [
            ("[]", "object"),
            (" {}", "object"),
            ("{", "EOF"),
            ("{}x", "trailing"),
            (r#"{"a":1}"#, "expected a map"),
            (r#"{"a":["F32",[1],[0,4]]}"#, "expected a map"),
            (r#"{"a":null}"#, "expected a map"),
            (r#"{"a":{"dtype":"F32","shape":[1]}}"#, "data_offsets"),
            (
                r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#,
                "F31",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
                "\"a\"",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
                "\"a\"",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
                "\"a\"",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e30]}}"#,
                "\"a\"",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                "twice",
            ),
            (r#"{"__metadata__":{},"__metadata__":{}}"#, "twice"),
            (r#"{"__metadata__":{"step":3}}"#, "string"),
            (r#"{"__metadata__":[]}"#, "expected a map"),
            (nested.as_str(), "recursion"),
        ] {
            refused(json, 4, said);
        }
        let error = Header::parse(b"{\"\xff\":1}", 20).unwrap_err();
        assert!(error.to_string().contains("UTF-8"), "{error}");
        assert_eq!(
            Header::parse(b"{}", 9).unwrap_err().code(),
            "bad-checkpoint"
        );
    }

    #[test]
    fn impossible_extents_are_refused() {
        let two = |a: [u64; 2], b: [u64; 2]| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":{a:?}}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":{b:?}}}}}"#,
                a[1].wrapping_sub(a[0]),
                b[1].wrapping_sub(b[0])
            )
        };
        assert!(parse(&two([4, 8], [0, 4]), 8).is_ok());
        for (json, data, said) in [
            (two([0, 4], [3, 8]), 8, "overlaps"),
            (two([0, 4], [0, 4]), 4, "overlaps"),
            (two([0, 4], [5, 8]), 8, "gap"),
            (two([1, 4], [4, 8]), 8, "gap"),
            (two([0, 4], [4, 8]), 7, "cut short"),
            (two([0, 4], [4, 8]), 9, "goes on"),
            (two([0, 4], [8, 4]), 8, "before it begins"),
            (two([0, 4], [4, u64::MAX]), 8, "too large"),
            (two([0, 4], [4, 1 << 60]), 8, "cut short"),
        ] {
            refused(&json, data, said);
        }
        for (dtype, shape, end, said) in [
            ("F32", "[2,3]", 23, "needs 24"),
            ("F16", "[]", 4, "needs 2"),
            ("F4", "[3]", 1, "needs 2"),
            ("F32", "[4294967296,4294967296]", 8, "too large"),
            ("U8", "[4294967295,4294967295,4294967295]", 8, "too large"),
        ] {
            let json = format!(
                r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#
            );
            refused(&json, end, said);
        }
    }
}
