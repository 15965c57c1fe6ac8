//! The input is the start of a file, as far as the end of its header. Whatever it is, an accepted header describes tensors
//! that follow each other and fill the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::checkpoint::{Header, header_length};

fuzz_target!(|bytes: &[u8]| {
    let Some((prefix, json)) = bytes.split_first_chunk() else {
        return;
    };
    let _ = header_length(*prefix, bytes.len() as u64);
    // Headers of the right length are the interesting ones, so the size of the data is what the prefix says instead.
    let file_size = (bytes.len() as u64).saturating_add(u64::from_le_bytes(*prefix));
    let Ok(header) = Header::parse(json, file_size) else {
        return;
    };
    let mut end = 0;
    for tensor in &header.tensors {
        assert_eq!(tensor.begin, end);
        let elements: u64 = tensor.shape.iter().map(|&side| side as u64).product();
        assert_eq!(
            (tensor.end - tensor.begin) * 8,
            elements * tensor.dtype.bits()
        );
        end = tensor.end;
    }
    assert_eq!(header.data_start + end, file_size);
});
