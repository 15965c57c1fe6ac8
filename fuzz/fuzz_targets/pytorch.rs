//! The input is a whole file, read as a PyTorch archive, planned and assembled: no input may panic, and every tensor of a header that is
//! accepted lies within the file.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use webjepa::checkpoint::Header;
use webjepa_fuzz::assembled;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::read(&mut Cursor::new(bytes), bytes.len() as u64) else {
        return;
    };
    for tensor in &header.tensors {
        assert!(tensor.begin <= tensor.end);
        assert!(header.data_start + tensor.end <= bytes.len() as u64);
    }
    assembled(header, bytes);
});
